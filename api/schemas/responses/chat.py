"""Response models of chat sessions."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import Error, ResponseModel
from api.schemas.responses.fields import Time
from api.schemas.responses.jobs import Citation, RetrievalResult, Usage


class SessionEntry(ResponseModel):
    id: str
    title: str = Field(description="the beginning of the first message, unless it was set")
    created_at: Time
    updated_at: Time = Field(description="time of the last question or answer")
    turns: int = Field(description="in all branches")


class SessionList(ResponseModel):
    data: list[SessionEntry]
    next_cursor: str | None = Field(description="`cursor` of the next page; null if there is none")


class TurnTimings(ResponseModel):
    """Seconds since the question."""

    queued: float | None
    first_token: float | None
    total: float | None


class SessionTurn(ResponseModel):
    id: str = Field(description="of the job that answers it")
    parent: str | None = Field(description="the turn before it")
    siblings: list[str] = Field(description="all turns after the same parent, oldest first, this one included")
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
    message: str
    answer: str | None = Field(description="what was written until the end; null while the job runs")
    reasoning: str = Field(description="what a model wrote before its answer")
    error: Error | None = Field(description="of a failed turn")
    model: str
    collection: str | None = Field(description="name of the collection that it was answered from")
    system: str | None = Field(description="system prompt")
    citations: list[Citation]
    grounded: bool | None = Field(description="whether the prompt had passages; null without a collection")
    retrieval: RetrievalResult | None = Field(description="how the passages were found; null without a collection")
    usage: Usage | None
    finish_reason: str | None
    created_at: Time
    timings: TurnTimings


class SessionTurns(ResponseModel):
    session: SessionEntry
    current: str | None = Field(description="the last turn of the branch that is shown")
    data: list[SessionTurn] = Field(description="the turns of the branch, oldest first")


class AnsweredTurn(ResponseModel):
    session: str
    turn: SessionTurn


class SessionDeletion(ResponseModel):
    id: str
    deleted: Literal[True]
    restorable_until: Time
