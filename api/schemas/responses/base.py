"""What every answer is made of: times, ids, errors, pages."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


Time = Annotated[float, Field(description="Unix seconds, with milliseconds")]


JobId = Annotated[str, Field(pattern=r"^job_[0-9a-hjkmnp-tv-z]{26}$", examples=["job_01m84stetzyr7esggznw5rdjds"])]


Kind = Literal["generate", "ingest", "search", "delete", "reindex", "unpack", "batch"]


def _open_to_more(schema: dict[str, Any]) -> None:
    # Tests refuse a field that is not described; clients must not, or each new field would break them.
    schema.pop("additionalProperties", None)
    # An optional field that an answer lacks is absent; it has no value that a client could assume.
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra=_open_to_more)


class Error(Answer):
    """What went wrong; some errors tell more than these four."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="for programs", examples=["invalid_value"])
    message: str = Field(description="for people: what happened, to what, and what to do")
    param: str | None = Field(description="the field at fault")
    type: str


class ErrorAnswer(Answer):
    error: Error


class Deleted(Answer):
    id: str
    object: Literal["job", "document", "chunk", "collection", "webhook"]
    deleted: Literal[True]


class Page(Answer, Generic[T]):
    """One page of a list; ``next`` is what ``after`` must be to go on."""

    object: Literal["list"]
    data: list[T]
    has_more: bool
    next: str | None
