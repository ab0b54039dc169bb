"""Conversations over HTTP: find those that the key of the request may use, and add items to them."""

from collections.abc import Sequence
from typing import Any

from api.caller import caller
from api.openai.parsing import plan_context, require_conversation
from api.services import owner, services
from shared.openai.conversations import Conversation, new_conversation_id
from shared.openai.requests import ConversationRequest
from shared.openai.requests.responses import Item
from shared.openai.responses.items import StoredItem, read_input


def create_conversation(request: ConversationRequest) -> Conversation:
    """Create a conversation with its first items. Raises InvalidValue, QuotaExceeded and Forbidden."""
    store, id = services().conversations, new_conversation_id()
    items = read_items(request.items or (), id)
    created = store.create(owner(), caller().key_id, request.metadata or {}, id)
    if items:
        store.add_items(created, owner(), items)
    return created


def find_conversation(conversation: str) -> Conversation:
    """The owner's conversation. Raises NotFound, and Forbidden if the key may not use it."""
    found = services().conversations.find(conversation, owner())
    require_conversation(found)
    return found


def read_items(items: Sequence[Item], id: str) -> list[StoredItem]:
    """The items of a request as they are stored. Those without an id get one made of ``id``. Raises InvalidValue and Forbidden."""
    context = plan_context()
    return read_input(items, id, find_item=context.find_item, ignored_params=context.ignored_params, param="items")


def list_items(conversation: Conversation, *, after: str, limit: int, newest_first: bool) -> tuple[list[dict[str, Any]], bool]:
    """A page of items, and whether there are more. Raises NotFound."""
    return services().conversations.items(conversation, owner(), after=after, limit=limit, newest_first=newest_first)
