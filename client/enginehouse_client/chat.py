"""A chat session. The server stores the messages; the client only knows the id of the chat."""

import uuid
from collections.abc import Mapping
from typing import Any, Unpack
from urllib.parse import quote

from enginehouse_client.effects import Operation
from enginehouse_client.jobs import JobCalls, Options
from enginehouse_client.models import Job, Turn


class Chat:
    """Operations on one chat. ``options`` are the defaults of every message."""

    def __init__(self, calls: JobCalls, chat_id: str | None, options: Options) -> None:
        self._calls = calls
        self._options = options
        self._started = False
        self.id = chat_id or f"chat-{uuid.uuid4()}"

    def say(self, message: str, *, wait_timeout: float | None = None, **options: Unpack[Options]) -> Operation[Turn]:
        """Send a message and wait for the answer. Raises JobFailed, and Timeout after ``wait_timeout`` seconds."""
        job = yield from self.submit(message, **options)
        ended = yield from self._calls.wait(job, timeout=wait_timeout)
        return Turn(ended.text, ended)

    def submit(self, message: str, **options: Unpack[Options]) -> Operation[Job]:
        """Send a message and return the job that answers it, without waiting."""
        body: dict[str, Any] = {**self._options, **options, "sessionId": self.id, "message": message}
        # A chat that was started and has expired must not silently start again without its history.
        response = yield from self._calls.submit("/chat/message" if self._started else "/chat/start", body)
        self._started = True
        return Job.from_json(response.json())

    def history(self) -> Operation[list[Mapping[str, str]]]:
        """Return the messages, oldest first, with ``role``, ``content`` and ``timestamp``. Raises NotFound."""
        history = yield from self._calls.request("GET", f"/chat/history/{quote(self.id, safe='')}")
        return list(history["messages"])

    def delete(self) -> Operation[None]:
        """Delete the chat. Raises NotFound."""
        yield from self._calls.remove(f"/chat/session/{quote(self.id, safe='')}")
        self._started = False
