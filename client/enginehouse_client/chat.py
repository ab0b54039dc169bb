"""A chat session. The server stores the messages; the client only knows the id of the chat."""

import uuid
from collections.abc import Mapping
from typing import Any, Unpack
from urllib.parse import quote

from enginehouse_client.effects import Operation
from enginehouse_client.jobs import ChatOptions, JobCalls
from enginehouse_client.models import ChatTurn, Job, Turn


class Chat:
    """Operations on one chat. ``options`` are the defaults of every message."""

    def __init__(self, calls: JobCalls, chat_id: str | None, options: ChatOptions) -> None:
        self._calls = calls
        self._options = options
        self._started = False
        self.id = chat_id or f"chat-{uuid.uuid4()}"

    def say(self, message: str, *, wait_timeout: float | None = None, **options: Unpack[ChatOptions]) -> Operation[Turn]:
        """Send a message and wait for the answer. Raises JobFailed, and Timeout after ``wait_timeout`` seconds."""
        job = yield from self.submit(message, **options)
        return (yield from self._answer(job, wait_timeout))

    def edit(
        self, turn: ChatTurn, message: str, *, wait_timeout: float | None = None, **options: Unpack[ChatOptions]
    ) -> Operation[Turn]:
        """Send a message in place of the one of a turn, as another branch, and wait for the answer. Raises what ``say`` raises."""
        body: dict[str, Any] = {**self._options, **options, "session": self.id, "message": message, "parent": turn.parent}
        response = yield from self._calls.submit("/chat", body)
        return (yield from self._answer(Job.from_json(response.json()), wait_timeout))

    def regenerate(
        self, turn: ChatTurn | str, *, wait_timeout: float | None = None, **options: Unpack[ChatOptions]
    ) -> Operation[Turn]:
        """Answer the message of a turn again, with the options of the first answer and ``options``, and wait. Raises what ``say`` raises."""
        id = turn if isinstance(turn, str) else turn.id
        response = yield from self._calls.submit(f"{self._path}/turns/{quote(id, safe='')}/regenerate", dict(options))
        return (yield from self._answer(Job.from_json(response.json()), wait_timeout))

    def submit(self, message: str, **options: Unpack[ChatOptions]) -> Operation[Job]:
        """Send a message and return the job that answers it, without waiting."""
        body: dict[str, Any] = {**self._options, **options, "sessionId": self.id, "message": message}
        # A chat that was started and has expired must not silently start again without its history.
        response = yield from self._calls.submit("/chat/message" if self._started else "/chat/start", body)
        self._started = True
        return Job.from_json(response.json())

    def turns(self) -> Operation[list[ChatTurn]]:
        """Return the turns of the branch that is shown, oldest first, also those that failed or still run. Raises NotFound."""
        found = yield from self._calls.request("GET", f"{self._path}/turns")
        return [ChatTurn.from_json(turn) for turn in found["data"]]

    def show(self, turn: ChatTurn | str) -> Operation[None]:
        """Show the branch of a turn: the next message follows it. Raises NotFound."""
        yield from self._calls.request("PATCH", self._path, json={"current": turn if isinstance(turn, str) else turn.id})

    def rename(self, title: str) -> Operation[None]:
        """Set the title. Raises NotFound."""
        yield from self._calls.request("PATCH", self._path, json={"title": title})

    def history(self) -> Operation[list[Mapping[str, str]]]:
        """Return the messages, oldest first, with ``role``, ``content`` and ``timestamp``. Raises NotFound."""
        history = yield from self._calls.request("GET", f"/chat/history/{quote(self.id, safe='')}")
        return list(history["messages"])

    def delete(self) -> Operation[None]:
        """Delete the chat, which can be restored for a minute. Raises NotFound."""
        yield from self._calls.remove(self._path)
        self._started = False

    def restore(self) -> Operation[None]:
        """Take the deletion back. Raises NotFound if it is more than a minute ago."""
        yield from self._calls.request("POST", f"{self._path}/restore")
        self._started = True

    @property
    def _path(self) -> str:
        return f"/chat/sessions/{quote(self.id, safe='')}"

    def _answer(self, job: Job, wait_timeout: float | None) -> Operation[Turn]:
        self._started = True
        ended = yield from self._calls.wait(job, timeout=wait_timeout)
        return Turn(ended.text, ended)
