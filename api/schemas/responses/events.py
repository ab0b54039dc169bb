"""The events of a stream."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.base import Answer, Time
from shared.jobs.models import Status


class StreamEvent(Answer):
    """One event of a stream; on the wire these are its lines."""

    id: str = Field(description="its sequence number, which rises by one", examples=["3"])
    event: Literal["queued", "started", "delta", "progress", "attempt_lost", "requeued", "restart", "ended"]
    data: str = Field(
        description="JSON, as EventData describes it",
        json_schema_extra={"contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/EventData"}},
        examples=['{"attempt": 1, "at": 1795457629.06, "text": "Paris."}'],
    )


class EventData(Answer):
    """The JSON of one event of a stream; which fields it has goes by the event's name."""

    attempt: int = Field(description="0 for what is not of one attempt")
    at: Time
    text: str = Field(default="", description="delta: the next piece of the answer")
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
