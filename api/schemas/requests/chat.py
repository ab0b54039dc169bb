"""Request models of chats."""

from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.requests.fields import Name
from api.schemas.requests.generation import GenerationOptions


class ChatStartRequest(GenerationOptions):
    message: str | None = Field(default=None, description="first message")
    sessionId: Name | None = Field(default=None, description="id of your choice, or of a chat to continue")


class ChatMessageRequest(GenerationOptions):
    message: Annotated[str, StringConstraints(min_length=1)]
    sessionId: Name
