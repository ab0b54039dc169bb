"""Sampling fields, which chat completions and completions of ``/v1`` share."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from shared.jobs.concurrency_fields import ConcurrencyFields
from shared.jobs.submission import MAX_END_USER
from shared.openai.requests.field_rules import OpenAIRequest


def _whole_number(value: Any) -> Any:
    # Clients whose language has one type of numbers send 100.0.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _drop_empty_stops(value: Any) -> Any:
    """A list, without the empty strings that some clients send when no stop is set."""
    values = [value] if isinstance(value, str) else value
    return [text for text in values if text != ""] if isinstance(values, list) else values


def _accept_one_string(schema: dict[str, Any]) -> None:
    items = schema["items"]
    array = {name: schema.pop(name) for name in ("type", "items", "maxItems")}
    schema["anyOf"] = [items, array]


Integer = Annotated[int, BeforeValidator(_whole_number)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Stop = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=200)]],
    BeforeValidator(_drop_empty_stops),
    Field(max_length=16, json_schema_extra=_accept_one_string),
]
TokenId = Annotated[Integer, Field(ge=0, lt=2**31)]
EndUser = Annotated[
    Annotated[str, StringConstraints(max_length=MAX_END_USER)] | None,
    Field(
        description="the end user, whose jobs take turns with those of the key's other end users; kept with the job as `end_user`"
    ),
]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = Field(default=None, description="send a last chunk with the usage and no choices")


Metadata = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]


class SamplingOptions(ConcurrencyFields, OpenAIRequest):
    """Fields that chat completions, completions and responses share."""

    model: ModelName | None = Field(default=None, description="name of a model of `GET /v1/models`; the default model if omitted")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 always takes the most likely token")
    top_p: float | None = Field(default=None, ge=0, le=1, description="0 keeps only the most likely token")
    top_k: Annotated[Integer, Field(ge=-1, le=100_000)] | None = Field(default=None, description="0 and -1 mean no limit")
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="minimum probability, relative to that of the most likely token"
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="subtracted from the scores of tokens of the answer"
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="the same, multiplied by how often the token has occurred"
    )
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=10, description="divides the scores of tokens of prompt and answer; 1 changes nothing"
    )
    logit_bias: (
        dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(default=None, max_length=1024, description="added to the scores of tokens, by their id in this model's vocabulary")
    stop: Stop | None = Field(default=None, description="up to 16 strings that end the answer")
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=64, description="tokens that end the answer")
    ignore_eos: bool | None = Field(default=None, description="continue after the model's end token, for benchmarks")
    seed: Annotated[Integer, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        default=None,
        description="with the same seed and request the same tokens are drawn, up to rounding in other batches, which `deterministic` excludes",
    )
    deterministic: bool | None = Field(
        default=None,
        description="with `temperature` 0 or a `seed`, other requests do not change the answer; it is computed in steps of its own, which slows down all",
    )
    stream: bool | None = Field(default=None, description="send the answer in pieces, as server-sent events")
    user: EndUser = None


class SamplingFields(SamplingOptions):
    """Fields that only chat completions and completions share."""

    max_tokens: Integer | None = Field(
        default=None, le=1_000_000, description="maximum length of the answer; the model's own limit if omitted or -1"
    )
    n: Annotated[Integer, Field(ge=1, le=32)] | None = Field(default=None, description="number of answers; each is a job")
    stream_options: StreamOptions | None = Field(default=None, description="`include_usage` adds a last chunk with the usage")

    @property
    def includes_usage(self) -> bool:
        """Whether the stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
