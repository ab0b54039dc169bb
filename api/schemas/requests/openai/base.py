"""The base class of request models of ``/v1``, and its rules for fields.

Clients send many fields that a server need not know, so unlike native calls these do not reject an unknown one. A field of a
model is *used*. ``harmless`` fields are accepted and change no answer. ``neutral`` fields are accepted with the values that they
list, null included, and refused with any other: they would change the answer, and the server cannot. All other fields are
ignored, and named in the header ``x-ignored-params``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from shared.errors import InvalidValue

MAX_SHOWN_PARAMS = 20
MAX_SHOWN_LENGTH = 40


class FieldRule(NamedTuple):
    """The values at which a field changes nothing, beside null, and why others are refused."""

    reason: str
    values: tuple[Any, ...] = ()


class OpenAIRequest(BaseModel):
    """A JSON body of a call of ``/v1``."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)

    harmless: ClassVar[Mapping[str, str]] = {}
    neutral: ClassVar[Mapping[str, FieldRule]] = {}

    @classmethod
    def known_fields(cls) -> set[str]:
        """Every field that has a rule."""
        return {*cls.model_fields, *cls.harmless, *cls.neutral}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """The validated request, and the names of ignored fields. Raises InvalidValue and pydantic's ValidationError."""
        present = {name: value for name, value in body.items() if value is not None}
        for name in cls.neutral.keys() & present.keys():
            rule = cls.neutral[name]
            # In Python 1 == True, but a client that sends true does not mean one.
            if not any(present[name] == value and type(present[name]) is type(value) for value in rule.values):
                raise InvalidValue(f"{name}: {rule.reason}", param=name, code="unsupported_parameter")
        request = cls.model_validate({name: value for name, value in present.items() if name in cls.model_fields})
        return request, shown_names(name for name in present if name not in cls.known_fields())


def shown_names(names: Any) -> list[str]:
    """Names of fields as a header may show them: some of them, shortened, without characters that could end the header."""
    shown = [name[:MAX_SHOWN_LENGTH].encode("ascii", "replace").decode() for name in names]
    return [name if name.isprintable() and "," not in name else repr(name) for name in shown[:MAX_SHOWN_PARAMS]]


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


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = Field(default=None, description="send a last chunk with the usage and no choices")


class SamplingFields(OpenAIRequest):
    """Fields that chat completions and completions share."""

    model: ModelName | None = Field(
        default=None, description="name of a model of `GET /v1/models`; the default model if it is missing"
    )
    max_tokens: Integer | None = Field(
        default=None, le=1_000_000, description="maximum length of the answer; the model's own limit if it is missing or -1"
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 always takes the most likely token")
    top_p: float | None = Field(default=None, ge=0, le=1, description="0 is taken as the smallest share: the most likely token")
    top_k: Annotated[Integer, Field(ge=-1, le=100_000)] | None = Field(default=None, description="0 and -1 mean no limit")
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="minimum probability, relative to that of the likeliest token"
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="subtracted from the scores of tokens of the answer"
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="the same, times the number of their occurrences"
    )
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=10, description="divides the scores of tokens of prompt and answer; 1 changes nothing"
    )
    logit_bias: (
        dict[Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(default=None, max_length=1024, description="added to the scores of tokens, by their id in this model's vocabulary")
    stop: Stop | None = Field(default=None, description="up to 16 strings that end the answer")
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=64, description="tokens that end the answer")
    ignore_eos: bool | None = Field(default=None, description="go on after the model's end token, for benchmarks")
    seed: Annotated[Integer, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        default=None, description="with the same seed and request the same tokens are drawn, up to rounding in other batches"
    )
    n: Annotated[Integer, Field(ge=1, le=32)] | None = Field(default=None, description="number of answers; each is a job")
    stream: bool | None = Field(default=None, description="send the answer in chunks, as server-sent events")
    stream_options: StreamOptions | None = Field(default=None, description="`include_usage` adds a last chunk with the usage")
    user: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="kept with the job, in its metadata"
    )

    @property
    def includes_usage(self) -> bool:
        """Whether the stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
