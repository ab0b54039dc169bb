"""What a body may hold, field by field: the one description of it, for those who check and for ``/openapi.json``.

Knows no request.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    Strict,
    StringConstraints,
    field_validator,
    model_validator,
)

from shared.documents.filters import parse_filter
from shared.documents.models import COLLECTION_NAME
from shared.webhooks.endpoints import FINAL_EVENTS, KINDS, Event, Kind
from shared.webhooks.ssrf import LONGEST_URL

PRIORITIES = {"interactive": 2, "default": 5, "batch": 8}

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Metadata = dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]]


def _or_one_text(schema: dict[str, Any]) -> None:
    items = schema["items"]
    listed = {name: schema.pop(name) for name in ("type", "items", "maxItems")}
    schema["anyOf"] = [items, listed]


def _or_a_word(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": schema.pop("type"), "minimum": 0, "maximum": 9}, {"enum": list(PRIORITIES)}]


def _or_a_name(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "string", "minLength": 1, "maxLength": 200}, *schema["anyOf"]]


def _exactly_one_input(schema: dict[str, Any]) -> None:
    inputs = {"prompt": "string", "messages": "array", "text": "string"}
    schema["oneOf"] = [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in inputs.items()]


Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Value = (
    Annotated[bool, Strict()]
    | Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]
    | Annotated[float, Strict(), Field(allow_inf_nan=False)]
    | Annotated[str, StringConstraints(max_length=512, strict=True)]
)
Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
Secret = Annotated[str, StringConstraints(max_length=200)]


class Body(BaseModel):
    """A JSON body: unknown fields are refused, as a misspelt limit is a limit that does not hold."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class Message(Body):
    role: Literal["system", "user", "assistant"]
    content: str


class JobWebhook(Body):
    """Where it is told what becomes of one job."""

    url: Url
    events: list[Event] = Field(default=list(FINAL_EVENTS), min_length=1, max_length=5)
    secret: Secret | None = None


class NewWebhook(Body):
    """An address that hears of all the owner's jobs of these kinds."""

    url: Url
    events: list[Event] = Field(default=list(FINAL_EVENTS), min_length=1, max_length=5)
    job_kinds: list[Kind] = Field(default=list(KINDS), min_length=1, max_length=6)
    description: Annotated[str, StringConstraints(max_length=200)] = ""
    secret: Secret | None = None


class WebhookChanges(Body):
    """What is left out stays as it is."""

    url: Url | None = None
    events: list[Event] | None = Field(default=None, min_length=1, max_length=5)
    job_kinds: list[Kind] | None = Field(default=None, min_length=1, max_length=6)
    description: Annotated[str, StringConstraints(max_length=200)] | None = None
    enabled: bool | None = None


class Found(Body):
    """How passages are found."""

    mode: Literal["vector", "keyword", "hybrid"] = "hybrid"
    filter: dict[str, Any] | None = Field(
        default=None,
        description='conditions on documents, such as {"metadata.year": {"gte": 2020}}: eq, ne, gt, gte, lt, lte, in, nin, and, or',
        examples=[{"metadata.year": {"gte": 2020}, "or": [{"page": 1}, {"name": {"ne": "draft.txt"}}]}],
    )
    threshold: Annotated[float, Field(description="the least score of a passage")] | None = None

    @field_validator("filter")
    @classmethod
    def _filter_can_be_read(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            parse_filter(value)
        return value


class Source(Found):
    """A collection to answer from, and how passages are found there."""

    name: Name
    top_k: Annotated[int, Field(ge=1, le=50, description="how many passages")] | None = None


class Sampling(Body):
    """How a generation goes about it; what is left out is the model's business."""

    model: Name | None = Field(default=None, description="see `GET /models`; by default the default one")
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="the longest answer; by default the model's"
    )
    temperature: Annotated[float, Field(ge=0, le=2, description="0 takes the likeliest token")] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    top_k: Annotated[int, Field(ge=0, le=100_000, description="0 does not limit")] = 0
    stop: list[Stop] = Field(default=[], max_length=16, description="texts that end the answer", json_schema_extra=_or_one_text)
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        default=None, description="the same draws the same tokens"
    )
    collection: Source | None = Field(
        default=None,
        description="answer from these documents, with citations; the name, or an object that also says how",
        json_schema_extra=_or_a_name,
    )
    use_rag: bool = Field(default=False, description="answer from the default collection")
    passages: Annotated[int, Field(ge=1, le=50)] | None = Field(default=None, description="how many passages to find")
    priority: int = Field(default=5, description="0 goes first, 9 last", json_schema_extra=_or_a_word)
    expires_in: Annotated[float, Field(gt=0, le=30 * 24 * 3600)] | None = Field(
        default=None, description="seconds; not started by then, it ends `expired`"
    )
    timeout: Annotated[float, Field(gt=0, le=30 * 24 * 3600)] | None = Field(
        default=None, description="seconds; not ended by then, it ends `failed`"
    )
    webhook: JobWebhook | None = None
    metadata: Metadata = Field(default={}, max_length=16, description="comes back with the job")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("collection", mode="before")
    @classmethod
    def _collection_by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            if not 1 <= len(value) <= 200:
                raise ValueError("must be the name of a collection")
            return Source(name=value)
        return value

    @field_validator("priority", mode="before")
    @classmethod
    def _priority_by_word(cls, value: Any) -> Any:
        value = PRIORITIES.get(value, value) if isinstance(value, str) else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 9:
            raise ValueError(f"must be 0 (first) to 9, or one of {', '.join(PRIORITIES)}")
        return value


class Generate(Sampling):
    """The body of ``POST /generate``: exactly one of ``prompt``, ``messages`` and ``text``."""

    model_config = ConfigDict(json_schema_extra=_exactly_one_input)

    prompt: str | None = Field(default=None, description="given to the model as it is")
    messages: list[Message] | None = Field(
        default=None, min_length=1, max_length=10_000, description="go through the model's chat template"
    )
    text: str | None = Field(default=None, description="one message of the user; the guide's field")

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        given = [name for name in ("prompt", "messages", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of prompt, messages and text, not {' and '.join(given) or 'none'}")
        return self


class ChatStart(Sampling):
    message: str | None = Field(default=None, description="what to say first")
    sessionId: Name | None = Field(default=None, description="of your own, or of a chat to go on with")


class ChatMessage(Sampling):
    message: Annotated[str, StringConstraints(min_length=1)]
    sessionId: Name


class NewBatch(Body):
    """A batch that is opened before there is anything in it."""

    webhook: JobWebhook | None = None
    metadata: Metadata = Field(default={}, max_length=16, description="comes back with the job")


class DocumentMetadata(RootModel[dict[Key, Value]]):
    """What is known of a document; searches can ask for it."""

    root: dict[Key, Value] = Field(max_length=32)


class Retry(Body):
    password: SecretStr | None = Field(default=None, description="of a document that ended `encrypted`")


class ChunkIds(Body):
    ids: list[Annotated[str, StringConstraints(max_length=100)]] = Field(min_length=1, max_length=1000)


class Removal(Body):
    ids: list[Annotated[str, StringConstraints(max_length=100)]] | None = Field(default=None, min_length=1, max_length=1000)
    query: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = Field(
        default=None, description="removes what a search finds first, as many as `ENGINEHOUSE_RETRIEVE_TOP_K`"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.ids is None) == (self.query is None):
            raise ValueError("give either ids or query")
        return self


class Clear(Body):
    confirm: Literal[True] = Field(description="must be true: this removes everything in the default collection")


class Search(Found):
    query: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
    top_k: Annotated[int, Field(ge=1, le=100, description="how many passages")] = 5
    neighbours: Annotated[int, Field(ge=0, le=5, description="chunks before and after each hit that come with it")] = 0


ChunkTokens = Annotated[int, Field(ge=16, le=8192, description="by default the server's; at most what the model sees")]
ChunkOverlapTokens = Annotated[int, Field(ge=0, le=4096, description="at most half of chunk_tokens")]


class CollectionChanges(Body):
    """What is left out stays as it is; null takes the server's."""

    chunk_tokens: ChunkTokens | None = None
    chunk_overlap_tokens: ChunkOverlapTokens | None = None


class NewCollection(CollectionChanges):
    name: Annotated[str, StringConstraints(pattern=f"^{COLLECTION_NAME.pattern}$")]
    embedding_model: Name | None = Field(default=None, description="by default the default one of the models file")


class Reindex(CollectionChanges):
    """What is left out stays as it is."""

    embedding_model: Name | None = Field(default=None, description="by default the same, or the default one if that is gone")
    webhook: JobWebhook | None = None


class ModelWish(Body):
    """Which model a GPU is to hold."""

    model: Name | None = Field(description="a model of the list; null for none")
