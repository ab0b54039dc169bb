"""Request models of chats."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from api.schemas.requests.fields import Name, RequestModel
from api.schemas.requests.generation import PRIORITIES, GenerationOptions, accept_priority_name

Text = Annotated[str, StringConstraints(min_length=1)]
Title = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
TurnId = Annotated[str, StringConstraints(min_length=1, max_length=100)]

# Options of a turn that another answer to it repeats.
TURN_OPTIONS = {
    *("model", "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "deterministic"),
    *("collection", "use_rag", "passages", "rewrite", "system"),
}


class TurnOptions(GenerationOptions):
    """Fields that every message of a chat has."""

    priority: int = Field(
        default=PRIORITIES["interactive"],
        description="0 runs first, 9 last; somebody waits for a chat",
        json_schema_extra=accept_priority_name,
    )
    system: Text | None = Field(default=None, description="system prompt of this answer; it is not part of the history")

    def repeated_options(self) -> dict[str, Any]:
        """The options that another answer to the same message repeats, as far as the client has set them."""
        return self.model_dump(mode="json", include=TURN_OPTIONS, exclude_unset=True)


class ChatRequest(TurnOptions):
    """The body of ``POST /chat``."""

    message: Text
    session: Name | None = Field(default=None, description="id of a chat, or one of your choice; a new chat if omitted")
    parent: TurnId | None = Field(
        default=None,
        description=(
            "the turn that this message follows; `null` makes it a first message beside the others. If omitted, the message follows "
            "the current turn"
        ),
    )


class RegenerateRequest(TurnOptions):
    """Options that differ from those of the answer that is repeated."""


class SessionChanges(RequestModel):
    title: Title | None = None
    current: TurnId | None = Field(
        default=None, description="a turn; its branch is shown, down to the newest turn that follows from it"
    )


class ChatStartRequest(TurnOptions):
    message: str | None = Field(default=None, description="first message")
    sessionId: Name | None = Field(default=None, description="id of your choice, or of a chat to continue")


class ChatMessageRequest(TurnOptions):
    message: Text
    sessionId: Name
