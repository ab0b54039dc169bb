"""Response models of documents, chunks, collections and uploads."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ListPage, ResponseModel
from api.schemas.responses.fields import JobId, Time
from api.schemas.responses.jobs import Job
from shared.documents.models import Status as DocumentStatus


class PageProblem(ResponseModel):
    """Text that could not be read from some pages."""

    pages: str = Field(examples=["1-3, 7"])
    text: str = Field(description="the problem", examples=["holds only images and needs OCR"])


class Document(ResponseModel):
    id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f"])
    object: Literal["document"]
    collection: str
    name: str
    version: int = Field(description="number of documents of this name in the collection so far")
    replaces: str | None = Field(description="id of the document of this name whose place it takes once it is ready")
    size: int = Field(description="bytes")
    sha256: str
    same_text_as: str | None = Field(
        default=None, description="id of a document of other bytes that had the same words when this one became ready"
    )
    url: str | None = Field(description="where the server fetched it; null for an upload")
    media_type: str
    status: DocumentStatus
    reason: str | None
    pages: int
    pages_done: int
    chunks: int
    problems: list[PageProblem] = Field(description="of single pages, whatever the status of the document")
    job_id: JobId
    created_at: Time
    updated_at: Time
    metadata: dict[str, str | int | float | bool] = Field(description="as given by the upload")


class UploadDocument(Document):
    job: JobId = Field(description="the ingest job")
    duplicate: bool = Field(description="whether the collection already had these bytes; the job is then not part of this batch")


class PageBox(ResponseModel):
    """A line, or a part of one. The place is given as fractions of the page, from its top left corner."""

    start: int = Field(description="position of its first character in the text of the page")
    end: int = Field(description="position behind its last character")
    x: float = Field(ge=0, le=1)
    y: float = Field(ge=0, le=1)
    width: float = Field(ge=0, le=1)
    height: float = Field(ge=0, le=1)


class PageText(ResponseModel):
    document_id: str
    page: int
    width: float | None = Field(description="of the page, in points; null if it cannot be drawn")
    height: float | None
    text: str
    boxes: list[PageBox]


class Collection(ResponseModel):
    id: str
    object: Literal["collection"]
    name: str
    embedding_model: str
    embedding_revision: str | None = Field(description="of the model weights; null until a document is indexed")
    chunk_tokens: int | None = Field(description="null for the server's setting")
    chunk_overlap_tokens: int | None = Field(description="null for the server's setting")
    ocr_languages: list[str] | None = Field(description="languages of scans; null for the server's setting")
    reindex_job: JobId | None = Field(description="the job that rebuilds the index")
    created_at: Time
    documents: int = Field(description="number of documents")


class Upload(ResponseModel):
    message: str
    document_ids: list[str] = Field(description="ids of the chunks, once the document is ready")
    document: Document | None = Field(description="null for an archive, whose batch is the job")
    job: Job | None


class DocumentList(ListPage[Document]):
    pass


class DocumentCounts(ResponseModel):
    """Numbers of documents by their status; statuses without documents are left out."""

    object: Literal["document_counts"]
    status: dict[DocumentStatus, int]
    total: int


class Chunk(ResponseModel):
    """A piece of a document as it is indexed. ``text`` is exactly the characters from ``start`` to ``end`` of its page."""

    id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f:0"])
    object: Literal["chunk"]
    document_id: str
    position: int = Field(description="in the document, from 0")
    page: int = Field(description="from 1")
    start: int
    end: int
    headings: list[str]
    text: str
    source: Literal["text", "ocr"] = Field(default="text", description="`ocr` if some of the text was read from a picture")
    confidence: float | None = Field(default=None, description="of OCR, from 0 to 1: the mean of its lines; null for other text")


class ChunkList(ListPage[Chunk]):
    pass


class CollectionList(ListPage[Collection]):
    pass


class UploadArchive(ResponseModel):
    name: str
    job: JobId = Field(description="the unpack job; its documents join the batch")


class UrlFetch(ResponseModel):
    url: str
    job: JobId = Field(description="the fetch job; the document and its ingest job join the batch once it has completed")


class NameConflict(ResponseModel):
    name: str = Field(description="of a file that was not added")
    document_id: str = Field(description="the document that has this name")


class UploadList(ListPage[UploadDocument]):
    archives: list[UploadArchive]
    fetches: list[UrlFetch] = Field(description="the URLs of the request")
    name_conflicts: list[NameConflict] = Field(
        description="files that would have replaced documents, with `replace` set to false"
    )
    batch: Job
