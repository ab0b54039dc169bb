"""Request models of ``/v1/vector_stores``."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from shared.documents.filters import Scalar
from shared.jobs.concurrency_fields import ConcurrencyFields
from shared.openai.requests.batches import Metadata
from shared.openai.requests.field_rules import FieldRule, OpenAIRequest
from shared.openai.requests.file_search import Filters, RankingOptions, ResultCount
from shared.openai.requests.sampling import Integer

MAX_BATCH_FILES = 2000
MAX_STORE_FILES = 500
MAX_QUERIES = 16

FileId = Annotated[str, StringConstraints(max_length=100)]
Query = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]


def _check_scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float | bool) or (isinstance(value, str) and len(value) > 512):
        raise ValueError("must be a string of at most 512 characters, a number, true or false")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("must be a number below 2^63")
    return value


Attributes = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[Scalar, BeforeValidator(_check_scalar)]],
    Field(max_length=16),
]


def _query_form(value: Any) -> str:
    return "(list)" if isinstance(value, list) else "(text)"


Queries = Annotated[
    Annotated[Query, Tag("(text)")] | Annotated[list[Query], Tag("(list)"), Field(min_length=1, max_length=MAX_QUERIES)],
    Discriminator(_query_form),
]


class Changes(OpenAIRequest):
    """A body in which null is a value, other than a field that is omitted."""

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> tuple[Self, list[str]]:
        request, ignored = super().from_body(body)
        nulls = {name: None for name in cls.model_fields if name in body and body[name] is None}
        return request.model_copy(update=nulls), ignored


class LastActive(BaseModel):
    """When a vector store expires: some days after its last use."""

    model_config = ConfigDict(extra="ignore", strict=True)

    anchor: Literal["last_active_at"]
    days: Annotated[Integer, Field(ge=1, le=365)]


class StaticChunks(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    max_chunk_size_tokens: Annotated[Integer, Field(ge=16, le=4096)]
    chunk_overlap_tokens: Annotated[Integer, Field(ge=0)]

    @model_validator(mode="after")
    def _check_overlap(self) -> "StaticChunks":
        if self.chunk_overlap_tokens * 2 > self.max_chunk_size_tokens:
            raise ValueError("chunk_overlap_tokens must be at most half of max_chunk_size_tokens")
        return self


class ChunkingStrategy(BaseModel):
    """``auto``, the server's settings, or ``static``."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["auto", "static"]
    static: StaticChunks | None = None

    @model_validator(mode="after")
    def _check_static(self) -> "ChunkingStrategy":
        if self.type == "static" and self.static is None:
            raise ValueError("static is required with type static")
        return self


class VectorStoreRequest(ConcurrencyFields, OpenAIRequest):
    """The body of ``POST /v1/vector_stores``."""

    name: Annotated[str, StringConstraints(max_length=256)] | None = Field(
        default=None, description="any text; names need not be unique. The name of the collection, if that is possible"
    )
    description: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="returned with the vector store"
    )
    file_ids: list[FileId] | None = Field(
        default=None, max_length=MAX_STORE_FILES, description="files of `/v1/files` to put into it; up to 500"
    )
    chunking_strategy: ChunkingStrategy | None = Field(
        default=None, description="`static`: the size and overlap of the chunks of all its files; the server's settings if `auto`"
    )
    expires_after: LastActive | None = Field(
        default=None, description="`anchor` `last_active_at` and `days` (1 to 365): it is deleted so long after its last use"
    )
    metadata: Metadata | None = Field(default=None, max_length=16, description="returned with the vector store")


class VectorStoreChanges(Changes):
    """The body of ``POST /v1/vector_stores/<vector store>``. null resets a field."""

    name: Annotated[str, StringConstraints(max_length=256)] | None = Field(
        default=None, description="the new name; that of the collection stays. null is the collection's name"
    )
    expires_after: LastActive | None = Field(default=None, description="null: it stays until it is deleted")
    metadata: Metadata | None = Field(default=None, max_length=16, description="replaces all of its metadata")


class VectorStoreSearch(OpenAIRequest):
    """The body of ``POST /v1/vector_stores/<vector store>/search``."""

    query: Queries = Field(description="a text, or up to 16 of them; a passage that several find has the best of its scores")
    max_num_results: ResultCount | None = Field(default=None, description="number of passages, 1 to 50; 10 if omitted")
    filters: Filters | None = Field(
        default=None,
        description="conditions on attributes: `eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `in`, `nin`, and `and` or `or` of them",
    )
    ranking_options: RankingOptions | None = Field(
        default=None,
        description="`score_threshold` leaves out passages below this score; `hybrid_search` with a weight of 0 searches by words or by vectors alone; `ranker` is `none`, a reranker of the models file, or the default one for OpenAI's names",
    )

    neutral: ClassVar[Mapping[str, FieldRule]] = {
        "rewrite_query": FieldRule("queries are searched for as they are; rewrite it before", (False,)),
    }

    @property
    def queries(self) -> list[str]:
        return [self.query] if isinstance(self.query, str) else self.query


class VectorStoreFileRequest(ConcurrencyFields, OpenAIRequest):
    """The body of ``POST /v1/vector_stores/<vector store>/files``."""

    file_id: FileId = Field(description="a file of `/v1/files`, of any purpose; `assistants` and `user_data` are usual")
    attributes: Attributes | None = Field(default=None, description="up to 16, which `filters` of a search can use")
    chunking_strategy: ChunkingStrategy | None = Field(
        default=None, description="that of the vector store; a `static` one is set for the whole store by its first file"
    )


class AttributeChanges(Changes):
    """The body of ``POST /v1/vector_stores/<vector store>/files/<file>``."""

    attributes: Attributes | None = Field(default=None, description="replaces all attributes of the file; null removes them")


class BatchFile(BaseModel):
    """A file of a batch with attributes of its own."""

    model_config = ConfigDict(extra="ignore", strict=True)

    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: ChunkingStrategy | None = None


class FileBatchRequest(ConcurrencyFields, OpenAIRequest):
    """The body of ``POST /v1/vector_stores/<vector store>/file_batches``."""

    file_ids: list[FileId] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_BATCH_FILES,
        description="up to 2,000 files of `/v1/files`; either these or `files`",
    )
    files: list[BatchFile] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_BATCH_FILES,
        description="the same, each with its own `attributes`",
    )
    attributes: Attributes | None = Field(default=None, description="of all `file_ids`")
    chunking_strategy: ChunkingStrategy | None = Field(default=None, description="as for a single file")

    @model_validator(mode="after")
    def _check_files(self) -> "FileBatchRequest":
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("file_ids: either file_ids or files must be set")
        return self

    @property
    def entries(self) -> list[BatchFile]:
        """The files, each with its attributes; one that is named twice is there once."""
        if self.files is None:
            entries = [BatchFile(file_id=id, attributes=self.attributes) for id in self.file_ids or ()]
        else:
            entries = self.files
        return list({entry.file_id: entry for entry in entries}.values())

    @property
    def strategies(self) -> list[tuple[str, ChunkingStrategy | None]]:
        """The chunking strategies in the request, each with its field."""
        own = [(f"files[{index}].chunking_strategy", file.chunking_strategy) for index, file in enumerate(self.files or ())]
        return own if self.files is not None else [("chunking_strategy", self.chunking_strategy)]
