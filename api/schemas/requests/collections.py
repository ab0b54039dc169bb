"""Request models of collections and their index."""

from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.requests.fields import CollectionName, Name, RequestModel
from api.schemas.requests.webhooks import JobWebhook
from shared.jobs.concurrency_fields import ConcurrencyFields

ChunkTokens = Annotated[
    int, Field(ge=16, le=8192, description="the server's setting if omitted; at most the context of the embedding model")
]
ChunkOverlapTokens = Annotated[int, Field(ge=0, le=4096, description="at most half of chunk_tokens")]


OcrLanguage = Annotated[str, StringConstraints(min_length=1, max_length=40)]


class ChunkChanges(RequestModel):
    """Omitted fields keep their value; null resets a field to the server's setting."""

    chunk_tokens: ChunkTokens | None = None
    chunk_overlap_tokens: ChunkOverlapTokens | None = None


class CollectionChanges(ChunkChanges):
    """Omitted fields keep their value; null resets a field to the server's setting."""

    ocr_languages: Annotated[list[OcrLanguage], Field(min_length=1, max_length=10)] | None = Field(
        default=None, description="languages of scans by the names of Tesseract's data files, such as `deu`"
    )


class NewCollection(CollectionChanges):
    name: CollectionName
    embedding_model: Name | None = Field(default=None, description="the default embedding model of the models file if omitted")


class ReindexRequest(ConcurrencyFields, ChunkChanges):
    """Omitted fields keep their value."""

    embedding_model: Name | None = Field(
        default=None, description="the current model if omitted, or the default one if the current one no longer exists"
    )
    webhook: JobWebhook | None = None
