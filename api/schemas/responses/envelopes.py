"""The base class of response models, and the envelopes that many calls share: errors, deletions, lists."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.responses.fields import Time

Entry = TypeVar("Entry")


def _allow_new_fields(schema: dict[str, Any]) -> None:
    # Tests reject a field that is not described. Clients must accept it, or each new field would break them.
    schema.pop("additionalProperties", None)
    # An optional field that a response lacks is absent; it has no value that a client could assume.
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class ResponseModel(BaseModel):
    # Few responses are validated, so their models are built when the API description is first requested, not at every start.
    model_config = ConfigDict(extra="forbid", json_schema_extra=_allow_new_fields, defer_build=True)


class Error(ResponseModel):
    """What went wrong. Some errors have more fields than these four."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="for programs", examples=["invalid_value"])
    message: str = Field(description="for people: what happened, to which object, and what to do")
    param: str | None = Field(description="the invalid field")
    type: str


class ErrorResponse(ResponseModel):
    error: Error


class Deletion(ResponseModel):
    id: str
    object: Literal["job", "document", "chunk", "collection", "webhook", "response"]
    deleted: Literal[True]
    restorable_until: Time = Field(default=0.0, description="of a document or a collection that can be restored: until when")


class ListPage(ResponseModel, Generic[Entry]):
    """One page of a list; pass ``next`` as ``after`` to get the next page."""

    object: Literal["list"]
    data: list[Entry]
    has_more: bool
    next: str | None
