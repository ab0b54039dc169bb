"""Request models of generations: prompt, sampling, retrieval, scheduling."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from api.schemas.requests.fields import JobMetadata, Name, NotBefore, RequestModel
from api.schemas.requests.search import RetrievalOptions
from api.schemas.requests.webhooks import JobWebhook
from shared.jobs.concurrency_fields import ConcurrencyFields
from shared.jobs.start_time import DESCRIPTION as START_TIME
from shared.jobs.start_time import delay_ms, describe_start_time
from shared.jobs.submission import MAX_END_USER

PRIORITIES = {"interactive": 2, "default": 5, "batch": 8}

Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _accept_one_string(schema: dict[str, Any]) -> None:
    items = schema["items"]
    array = {name: schema.pop(name) for name in ("type", "items", "maxItems")}
    schema["anyOf"] = [items, array]


def accept_priority_name(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": schema.pop("type"), "minimum": 0, "maximum": 9}, {"enum": list(PRIORITIES)}]


def _accept_collection_name(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"type": "string", "minLength": 1, "maxLength": 200}, *schema["anyOf"]]


def _require_exactly_one_input(schema: dict[str, Any]) -> None:
    inputs = {"prompt": "string", "messages": "array", "text": "string"}
    schema["oneOf"] = [{"required": [name], "properties": {name: {"type": kind}}} for name, kind in inputs.items()]


class Message(RequestModel):
    role: Literal["system", "user", "assistant"]
    content: str


class CollectionSource(RetrievalOptions):
    """A collection to answer from, and how passages are retrieved from it."""

    name: Name
    top_k: Annotated[int, Field(ge=1, le=50, description="maximum number of passages")] | None = None
    neighbours: Annotated[int, Field(ge=0, le=5)] | None = Field(
        default=None,
        description="chunks before and after each passage that the model also reads; by default the model's number, usually 1",
    )
    context_tokens: Annotated[int, Field(ge=64, le=1_000_000)] | None = Field(
        default=None, description="maximum tokens of all passages in the prompt; 1,500 unless the server is set otherwise"
    )
    min_relevance: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description=(
            "minimum relevance of a passage: the reranker's score, or else the cosine similarity. If no passage reaches it, the "
            "answer says that the documents contain none"
        ),
    )


class GenerationOptions(ConcurrencyFields, RequestModel):
    """Fields that every generation has, whatever its input."""

    model: Name | None = Field(default=None, description="name of a model, see `GET /models`; the default model if omitted")
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="maximum answer length in tokens; the model's limit if omitted"
    )
    temperature: Annotated[float, Field(ge=0, le=2, description="0 always takes the most likely token")] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    top_k: Annotated[int, Field(ge=0, le=100_000, description="0 means no limit")] = 0
    stop: list[Stop] = Field(
        default=[], max_length=16, description="strings that end the answer", json_schema_extra=_accept_one_string
    )
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        default=None,
        description=(
            "with the same prompt, options and seed, a model that runs nothing else samples the same tokens; other requests in its "
            "batch change the last digits of the scores, and so now and then a token"
        ),
    )
    deterministic: bool = Field(
        default=False,
        description=(
            "with `temperature` 0 or a seed, other requests do not change the answer; it is computed in steps of its own, which slows "
            "down all requests of the model"
        ),
    )
    collection: CollectionSource | None = Field(
        default=None,
        description="answer from these documents, with citations: the collection's name, or an object with retrieval options",
        json_schema_extra=_accept_collection_name,
    )
    use_rag: bool = Field(default=False, description="answer from the default collection")
    rewrite: bool | None = Field(
        default=None,
        description=(
            "with a collection: let the model rewrite a follow-up question to stand alone before the search; true unless "
            "the server is set otherwise"
        ),
    )
    passages: Annotated[int, Field(ge=1, le=50)] | None = Field(
        default=None, description="maximum number of passages to retrieve"
    )
    priority: int = Field(default=5, description="0 runs first, 9 last", json_schema_extra=accept_priority_name)
    end_user: Annotated[str, StringConstraints(min_length=1, max_length=MAX_END_USER)] | None = Field(
        default=None,
        description="the person behind the API key for whom the job runs; the end users of a key take turns within its share",
    )
    expires_in: Annotated[float, Field(gt=0, le=30 * 24 * 3600)] | None = Field(
        default=None, description="seconds; a job that has not started by then ends as `expired`"
    )
    timeout: Annotated[float, Field(gt=0, le=30 * 24 * 3600)] | None = Field(
        default=None, description="seconds; a job that has not ended by then ends as `failed`"
    )
    not_before: NotBefore | None = Field(
        default=None,
        description=f"when the job may start at the earliest: {START_TIME}. `expires_in` and `timeout` count from then",
        json_schema_extra=describe_start_time,
    )
    webhook: JobWebhook | None = None
    metadata: JobMetadata = Field(default={}, max_length=16, description="returned with the job")

    @field_validator("stop", mode="before")
    @classmethod
    def _wrap_one_stop_string(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("collection", mode="before")
    @classmethod
    def _parse_collection_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            if not 1 <= len(value) <= 200:
                raise ValueError("must be the name of a collection")
            return CollectionSource(name=value)
        return value

    @property
    def delay_ms(self) -> int:
        """How long the job waits before it may start."""
        return delay_ms(self.not_before)

    @field_validator("priority", mode="before")
    @classmethod
    def _parse_priority(cls, value: Any) -> Any:
        value = PRIORITIES.get(value, value) if isinstance(value, str) else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 9:
            raise ValueError(f"must be 0 (first) to 9, or one of {', '.join(PRIORITIES)}")
        return value


class GenerateRequest(GenerationOptions):
    """The body of ``POST /generate``: exactly one of ``prompt``, ``messages`` and ``text``."""

    model_config = ConfigDict(json_schema_extra=_require_exactly_one_input)

    prompt: str | None = Field(default=None, description="sent to the model unchanged")
    messages: list[Message] | None = Field(
        default=None, min_length=1, max_length=10_000, description="formatted by the model's chat template"
    )
    text: str | None = Field(default=None, description="one user message; the field of the chat_gp_me tutorial")
    keep_seconds: Annotated[int, Field(ge=60, le=365 * 24 * 3600)] | None = Field(
        default=None,
        description="how long the job is kept after its end, at most the server's time. A completed job is kept without its prompt",
    )
    store: bool = Field(
        default=True,
        description="with `false`, the job is deleted a minute after its end, and its prompt when it completes",
    )

    @model_validator(mode="after")
    def _check_one_input(self) -> Self:
        present = [name for name in ("prompt", "messages", "text") if getattr(self, name) is not None]
        if len(present) != 1:
            raise ValueError(f"give exactly one of prompt, messages and text, not {' and '.join(present) or 'none'}")
        return self
