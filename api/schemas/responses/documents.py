"""Documents, their chunks, collections, and what an upload is answered with."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.base import Answer, JobId, Page, Time
from api.schemas.responses.jobs import Job
from shared.documents.models import Status as DocumentStatus


class Problem(Answer):
    pages: str = Field(examples=["1-3, 7"])
    text: str = Field(description="what is wrong with them", examples=["holds only images and needs OCR"])


class Document(Answer):
    id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f"])
    object: Literal["document"]
    collection: str
    name: str
    version: int = Field(description="counts the documents of this name in the collection")
    size: int = Field(description="bytes")
    sha256: str
    media_type: str
    status: DocumentStatus
    reason: str | None
    pages: int
    pages_done: int
    chunks: int
    problems: list[Problem] = Field(description="of pages, whatever became of the document")
    job_id: JobId
    created_at: Time
    updated_at: Time
    metadata: dict[str, str | int | float | bool] = Field(description="what the upload said of it")


class TakenDocument(Document):
    job: JobId = Field(description="the job that reads it")
    duplicate: bool = Field(description="whether its bytes were there already; then that job is not of this batch")


class Collection(Answer):
    id: str
    object: Literal["collection"]
    name: str
    embedding_model: str
    embedding_revision: str | None = Field(description="of its weights; null until something was indexed")
    chunk_tokens: int | None = Field(description="null for the server's")
    chunk_overlap_tokens: int | None = Field(description="null for the server's")
    reindex_job: JobId | None = Field(description="the job that makes its index anew")
    created_at: Time
    documents: int = Field(description="how many")


class Upload(Answer):
    message: str
    document_ids: list[str] = Field(description="of the chunks, once the document is ready")
    document: Document | None = Field(description="of an archive there is none; its batch is the job")
    job: Job | None


class DocumentList(Page[Document]):
    pass


class Chunk(Answer):
    """A piece of a document as it is indexed; its text is exactly the characters from start to end of its page."""

    id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f:0"])
    object: Literal["chunk"]
    document_id: str
    position: int = Field(description="in the document, from 0")
    page: int = Field(description="from 1")
    start: int
    end: int
    headings: list[str]
    text: str


class ChunkList(Page[Chunk]):
    pass


class CollectionList(Page[Collection]):
    pass


class TakenArchive(Answer):
    name: str
    job: JobId = Field(description="the job that unpacks it; its documents join the batch")


class TakenList(Page[TakenDocument]):
    archives: list[TakenArchive]
    batch: Job
