"""Response models of ``/v1/vector_stores``, in the forms of OpenAI's API."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel
from api.schemas.responses.openai_batches import OpenAIPage

FileState = Literal["in_progress", "completed", "cancelled", "failed"]


class VectorStoreFileCounts(ResponseModel):
    in_progress: int
    completed: int
    cancelled: int
    failed: int
    total: int


class VectorStoreExpiry(ResponseModel):
    anchor: Literal["last_active_at"]
    days: int


class VectorStore(ResponseModel):
    """A collection as OpenAI describes a vector store."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str | None
    usage_bytes: int = Field(description="of the files, without their indexes")
    file_counts: VectorStoreFileCounts
    status: Literal["in_progress", "completed", "expired"]
    expires_after: VectorStoreExpiry | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]
    collection: str = Field(description="name of the collection in the native API")


class VectorStoreList(OpenAIPage[VectorStore]):
    pass


class VectorStoreDeletion(ResponseModel):
    id: str
    object: Literal["vector_store.deleted", "vector_store.file.deleted"]
    deleted: Literal[True]


class VectorStoreFileError(ResponseModel):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class StaticChunks(ResponseModel):
    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class StaticChunkingStrategy(ResponseModel):
    type: Literal["static"]
    static: StaticChunks


class VectorStoreFile(ResponseModel):
    """A document as OpenAI describes a file of a vector store."""

    id: str = Field(description="of the file of `/v1/files`, or made from that of a document that was uploaded otherwise")
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: FileState
    last_error: VectorStoreFileError | None
    usage_bytes: int
    attributes: dict[str, str | float | bool]
    chunking_strategy: StaticChunkingStrategy
    document_id: str = Field(description="id of the document in the native API")


class VectorStoreFileList(OpenAIPage[VectorStoreFile]):
    pass


class VectorStoreFileBatch(ResponseModel):
    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    file_counts: VectorStoreFileCounts
    job_id: str = Field(description="of the batch in the native API")


class FileContentPart(ResponseModel):
    type: Literal["text"]
    text: str
    page: int


class VectorStoreFileContent(ResponseModel):
    object: Literal["vector_store.file_content.page"]
    data: list[FileContentPart] = Field(description="the text of each page")
    has_more: Literal[False]
    next_page: None


class SearchContent(ResponseModel):
    type: Literal["text"]
    text: str


class VectorStoreHit(ResponseModel):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | float | bool]
    content: list[SearchContent]
    document_id: str
    page: int
    start_index: int = Field(description="character of the page's text at which the passage begins")
    end_index: int


class VectorStoreHits(ResponseModel):
    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[VectorStoreHit] = Field(description="the passages, best first")
    has_more: Literal[False]
    next_page: None
