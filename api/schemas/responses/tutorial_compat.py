"""Response models of the chat and chunk calls of the chat_gp_me tutorial."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.responses.envelopes import ResponseModel
from api.schemas.responses.fields import JobId
from api.schemas.responses.jobs import Citation, Usage


class TutorialText(ResponseModel):
    id: str
    content: str
    metadata: dict[str, Any]


class TutorialTexts(ResponseModel):
    documents: list[TutorialText]
    count: int


class TutorialDeletion(ResponseModel):
    message: str
    deleted_ids: list[str]


class TutorialChunkDeletion(ResponseModel):
    message: str
    deleted_id: str


class TutorialRemoval(ResponseModel):
    message: str
    removed_ids: list[str]


class TutorialReset(ResponseModel):
    message: str
    removed_count: int = Field(description="number of chunks")


class ChatTurn(ResponseModel):
    role: Literal["user", "assistant"]
    content: str
    timestamp: str


class Chat(ResponseModel):
    """The messages of a session, oldest first. The other fields describe the newest answer if this call created it."""

    sessionId: str
    messages: list[ChatTurn]
    job: JobId = ""
    citations: list[Citation] = Field(default=[])
    usage: Usage | None = None


class ChatDeletion(ResponseModel):
    message: str
    sessionId: str
