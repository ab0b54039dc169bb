"""Response models of event streams."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel
from api.schemas.responses.fields import Time
from api.schemas.responses.jobs import TokenLogprobs
from shared.jobs.models import Status


class StreamEvent(ResponseModel):
    """One server-sent event; each field is a line of it."""

    id: str = Field(description="sequence number, which increases by one", examples=["3"])
    event: Literal["queued", "started", "delta", "progress", "attempt_lost", "requeued", "restart", "ended"]
    data: str = Field(
        description="JSON, described by EventData",
        json_schema_extra={"contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/EventData"}},
        examples=['{"attempt": 1, "at": 1795457629.06, "text": "Paris."}'],
    )


class ToolCallPiece(ResponseModel):
    """A piece of a call. The first one has the id and the name; the arguments of all of them together are JSON."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class EventData(ResponseModel):
    """The JSON of one event. Its fields depend on the event's name."""

    attempt: int = Field(description="0 for an event that belongs to no attempt")
    at: Time
    text: str = Field(default="", description="delta: the next piece of the answer")
    reasoning: str = Field(default="", description="delta: the next piece of what the model writes before its answer")
    tool_calls: list[ToolCallPiece] = Field(default=[], description="delta: the next pieces of calls of functions")
    logprobs: list[TokenLogprobs] = Field(default=[], description="delta: of the tokens of this piece")
    citations: list[dict[str, Any]] = Field(
        default=[], description="delta: of a `file_search`, what the markers of the answer stand for"
    )
    file_search: dict[str, Any] | None = Field(default=None, description="requeued, delta: of a `file_search`, what was found")
    queue: str = Field(default="", description="queued")
    worker: str = Field(default="", description="started, attempt_lost")
    phase: str = Field(default="", description="progress")
    done: int = Field(default=0, description="progress")
    total: int = Field(default=0, description="progress")
    unit: str = Field(default="", description="progress")
    why: str = Field(default="", description="requeued")
    delay_ms: int = Field(default=0, description="requeued")
    status: Status | None = Field(default=None, description="ended")
    code: str = Field(default="", description="ended: the code of the error of a failed job")
