"""A chat: what is said in it, and what was said before. The server remembers; this side knows the chat's id."""

import uuid
from collections.abc import Mapping
from typing import Any, Unpack
from urllib.parse import quote

from enginehouse_client.effects import Operation
from enginehouse_client.jobs import JobCalls, Options
from enginehouse_client.models import Job, Turn


class Chat:
    """The calls of one chat. ``options`` are those of every message that does not say otherwise."""

    def __init__(self, calls: JobCalls, chat_id: str | None, options: Options) -> None:
        self._calls = calls
        self._options = options
        self._begun = False
        self.id = chat_id or f"chat-{uuid.uuid4()}"

    def say(self, message: str, *, wait_timeout: float | None = None, **options: Unpack[Options]) -> Operation[Turn]:
        """Say something, and wait for the answer. Raises JobFailed, and Timeout after ``wait_timeout`` seconds."""
        job = yield from self.submit(message, **options)
        ended = yield from self._calls.wait(job, timeout=wait_timeout)
        return Turn(ended.text, ended)

    def submit(self, message: str, **options: Unpack[Options]) -> Operation[Job]:
        """Say something without waiting: the job that answers, to be followed or waited for."""
        body: dict[str, Any] = {**self._options, **options, "sessionId": self.id, "message": message}
        # A chat that was begun and is gone must not begin anew as if nothing had been said.
        answer = yield from self._calls.submit("/chat/message" if self._begun else "/chat/start", body)
        self._begun = True
        return Job.read(answer.json())

    def history(self) -> Operation[list[Mapping[str, str]]]:
        """What was said, oldest first: ``role``, ``content``, ``timestamp``. Raises NotFound."""
        told = yield from self._calls.request("GET", f"/chat/history/{quote(self.id, safe='')}")
        return list(told["messages"])

    def delete(self) -> Operation[None]:
        """Forget the chat. Raises NotFound."""
        yield from self._calls.remove(f"/chat/session/{quote(self.id, safe='')}")
        self._begun = False
