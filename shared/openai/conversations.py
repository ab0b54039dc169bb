"""Conversations of ``/v1``: items that clients and responses add, and that responses read.

A conversation is a hash with its items beside it (``shared/jobs/lua/lib/conversation.lua`` has the keys). It is kept for some time after its
last use. A response is noted with the conversation when it is submitted. Its items are added once it has completed and somebody reads the
conversation or the response, so the end of a job does not depend on the conversation, and an answer that was lost adds nothing.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from shared.errors import Conflict, NotFound, QuotaExceeded
from shared.ids import is_id, new_id
from shared.jobs.models import Job, Status
from shared.jobs.serialization import to_json
from shared.lua_scripts import Clock
from shared.openai.responses.ids import response_id
from shared.openai.responses.store import StoredResponses
from shared.openai.scripts import OpenAIScripts
from shared.redis_connection import PREFIX
from shared.settings import Settings

CONVERSATION = "conv"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation without its items. ``key`` is the id of the API key that created it, or empty; ``size`` is in bytes."""

    id: str
    key: str
    created_at: int
    metadata: Mapping[str, str]
    size: int
    count: int

    def as_json(self) -> dict[str, Any]:
        """The conversation in OpenAI's form."""
        return {
            "id": self.id,
            "object": "conversation",
            "created_at": self.created_at // 1000,
            "metadata": dict(self.metadata),
        }


class ConversationFull(Conflict):
    """A conversation that accepts no further items."""

    code = "conversation_full"
    should_retry = False

    def __init__(self, conversation: str, limit: int) -> None:
        super().__init__(
            f"Conversation {conversation} has reached the limit of {limit} bytes. Delete items, or start another one.",
            details={"limit": limit},
        )


class Conversations:
    """Creates, reads, changes and deletes conversations of owners. ``clock`` gives Unix milliseconds and is for tests."""

    def __init__(
        self, client: redis.Redis, settings: Settings, responses: StoredResponses, *, clock: Clock | None = None
    ) -> None:
        self._client: Any = client
        self._scripts = OpenAIScripts(client, clock=clock)
        self._settings = settings
        self._responses = responses

    def create(self, owner: str, key: str, metadata: Mapping[str, str], id: str) -> Conversation:
        """Create a conversation without items. Raises QuotaExceeded."""
        settings = self._settings
        outcome, *limit = self._scripts.create_conversation(
            id=id,
            owner=owner,
            key=key,
            ttl_seconds=settings.response_retention_seconds,
            limit=settings.max_sessions,
            metadata=to_json(metadata),
        )
        if outcome == "full":
            raise QuotaExceeded("sessions", int(limit[0]))
        return self.find(id, owner)

    def find(self, id: str, owner: str, *, param: str = "conversation") -> Conversation:
        """The owner's conversation, with the items of responses that have completed. Raises NotFound."""
        found, pending = self._read(id, owner, param)
        if self._add_completed(id, owner, pending):
            found, _ = self._read(id, owner, param)
        return found

    def add_response(self, job: Job) -> None:
        """Add the items of a response to its conversation, if it has one that still exists. They are added once, however often this is
        called, so this is only needed before the job may be deleted."""
        if job.conversation:
            with suppress(NotFound):
                self.find(job.conversation, job.owner)

    def change(self, conversation: Conversation, owner: str, metadata: Mapping[str, str]) -> Conversation:
        """Replace the metadata. Raises NotFound."""
        self._scripts.change_conversation(id=conversation.id, owner=owner, metadata=to_json(metadata))
        return self.find(conversation.id, owner)

    def delete(self, conversation: Conversation, owner: str) -> None:
        """Delete a conversation with its items. Responses stay."""
        self._scripts.remove_conversation(id=conversation.id, owner=owner)

    def require_room(self, conversation: Conversation) -> None:
        """Raise ConversationFull if the conversation accepts no further items."""
        if conversation.size >= self._settings.max_session_bytes:
            raise ConversationFull(conversation.id, self._settings.max_session_bytes)

    def add_items(self, conversation: Conversation, owner: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Add items to the end. One that the conversation has already is not added again. Raises ConversationFull and NotFound."""
        limit = self._settings.max_session_bytes
        outcome = self._scripts.add_conversation_items(
            id=conversation.id, owner=owner, job="", bytes_limit=limit, items=_rows(items)
        )
        if outcome == "full":
            raise ConversationFull(conversation.id, limit)
        if outcome == "missing":
            raise conversation_not_found(conversation.id)

    def items(
        self, conversation: Conversation, owner: str, *, after: str = "", limit: int = 0, newest_first: bool = False
    ) -> tuple[list[dict[str, Any]], bool]:
        """Items after the one with the id ``after``, and whether there are more. A limit of 0 is none. Raises NotFound."""
        outcome, found = self._scripts.list_conversation_items(
            id=conversation.id, owner=owner, after=after, limit=limit, newest_first=int(newest_first)
        )
        if outcome == "no_item":
            raise item_not_found(conversation.id, after, "after")
        items = [json.loads(item) for item in found]
        return (items[:limit], len(items) > limit) if limit else (items, False)

    def find_item(self, conversation: Conversation, item: str) -> dict[str, Any]:
        """One item. Raises NotFound."""
        found = self._client.hget(f"{PREFIX}conversation:{conversation.id}:items", item)
        if found is None:
            raise item_not_found(conversation.id, item, "item_id")
        return dict(json.loads(found))

    def delete_item(self, conversation: Conversation, owner: str, item: str) -> None:
        """Delete one item. Raises NotFound."""
        if not self._scripts.remove_conversation_item(id=conversation.id, owner=owner, item=item):
            raise item_not_found(conversation.id, item, "item_id")

    def _read(self, id: str, owner: str, param: str) -> tuple[Conversation, list[str]]:
        record = self._scripts.read_conversation(id=id, owner=owner) if is_id(CONVERSATION, id) else None
        if not record:
            raise conversation_not_found(id, param)
        key, created_at, metadata, size, count, pending = record
        found = Conversation(
            id=id, key=key, created_at=int(created_at), metadata=json.loads(metadata), size=int(size), count=int(count)
        )
        return found, pending

    def _add_completed(self, id: str, owner: str, pending: Sequence[str]) -> bool:
        """Add the items of pending responses that have completed, and forget those that ended otherwise. Whether there were any."""
        has_changed = False
        for job in pending:
            items: Sequence[Mapping[str, Any]] = ()
            try:
                stored = self._responses.find(response_id(job), owner)
            except NotFound:
                pass  # deleted before its items were added
            else:
                if not stored.job.status.final:
                    continue
                if stored.job.status is Status.COMPLETED:
                    items = [*stored.new_input, *stored.body["output"]]
            self._scripts.add_conversation_items(id=id, owner=owner, job=job, bytes_limit=0, items=_rows(items))
            has_changed = True
        return has_changed


def new_conversation_id() -> str:
    """An id such as ``conv_01k9…``."""
    return new_id(CONVERSATION)


def conversation_not_found(conversation: str, param: str = "conversation") -> NotFound:
    """The error for a conversation that does not exist, or belongs to another owner."""
    return NotFound(
        f"{param}: Conversation {conversation[:80]!r} does not exist. It was deleted, or has outlived its retention.",
        code="conversation_not_found",
        param=param,
    )


def item_not_found(conversation: str, item: str, param: str) -> NotFound:
    """The error for an item that is not in a conversation."""
    return NotFound(f"{param}: Conversation {conversation} has no item {item[:80]!r}.", code="item_not_found", param=param)


def _rows(items: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"id": str(item["id"]), "item": to_json(item)} for item in items]
