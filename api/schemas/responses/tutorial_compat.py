"""The answers of the guide's own calls, on chunks and on chats."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.responses.base import Answer, JobId
from api.schemas.responses.jobs import Citation, Usage


class GuideText(Answer):
    id: str
    content: str
    metadata: dict[str, Any]


class GuideTexts(Answer):
    documents: list[GuideText]
    count: int


class GuideDeleted(Answer):
    message: str
    deleted_ids: list[str]


class GuideDeletedChunk(Answer):
    message: str
    deleted_id: str


class GuideRemoved(Answer):
    message: str
    removed_ids: list[str]


class GuideCleared(Answer):
    message: str
    removed_count: int = Field(description="chunks")


class ChatTurn(Answer):
    role: Literal["user", "assistant"]
    content: str
    timestamp: str


class Chat(Answer):
    """What has been said, oldest first; with what the newest answer came from when this call made it."""

    sessionId: str
    messages: list[ChatTurn]
    job: JobId = ""
    citations: list[Citation] = Field(default=[])
    usage: Usage | None = None


class ChatDeleted(Answer):
    message: str
    sessionId: str
