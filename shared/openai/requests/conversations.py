"""Request models of ``/v1/conversations``."""

from pydantic import Field

from shared.openai.requests.field_rules import OpenAIRequest
from shared.openai.requests.responses import MAX_ITEMS, InputItem
from shared.openai.requests.sampling import Metadata

ITEMS = "messages of text, function calls and their outputs, references to items of stored responses; others are skipped"


class ConversationRequest(OpenAIRequest):
    """The body of ``POST /v1/conversations``."""

    items: list[InputItem] | None = Field(default=None, max_length=MAX_ITEMS, description=f"its first items: {ITEMS}")
    metadata: Metadata | None = Field(default=None, description="kept with the conversation")


class ConversationChanges(OpenAIRequest):
    """The body of ``POST /v1/conversations/<conversation>``."""

    metadata: Metadata | None = Field(default=None, description="replaces the metadata; null removes it")


class ConversationItemsRequest(OpenAIRequest):
    """The body of ``POST /v1/conversations/<conversation>/items``."""

    items: list[InputItem] = Field(min_length=1, max_length=MAX_ITEMS, description=ITEMS)
