"""Chunks of streamed chat completions and completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.openai.chat import chat_logprobs, response_head, service_tier
from api.openai.completions import legacy_logprobs
from api.openai.completions import response_head as completion_head
from api.openai.results import finish_reason, sum_usage
from shared.jobs.models import Job


class ChatChunks:
    """Chunks of a chat completion. The first one of each choice has the role, the last one the reason for its end."""

    def __init__(self, job: Job, *, copies: int, includes_usage: bool) -> None:
        self._head = {**response_head(job, "chat.completion.chunk"), "service_tier": service_tier(job)}
        self._copies = copies
        # A client that asks for the usage gets the field in every chunk.
        self._tail: dict[str, Any] = {"usage": None} if includes_usage else {}

    def start(self, number: int) -> list[dict[str, Any]]:
        return [self._chunk(number, {"role": "assistant", "content": "", "refusal": None})]

    def piece(self, number: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        if delta.get("text"):
            content["content"] = delta["text"]
        if delta.get("reasoning"):
            content["reasoning_content"] = content["reasoning"] = delta["reasoning"]
        if delta.get("tool_calls"):
            content["tool_calls"] = [_call_delta(call) for call in delta["tool_calls"]]
        logprobs = chat_logprobs(delta["logprobs"]) if delta.get("logprobs") else None
        return self._chunk(number, content, logprobs=logprobs)

    def end(self, number: int, job: Job) -> list[dict[str, Any]]:
        return [self._chunk(number, {}, reason=finish_reason(job.result or {}))]

    def usage(self, jobs: Sequence[Job]) -> dict[str, Any] | None:
        return {**self._head, "choices": [], "usage": sum_usage(jobs, self._copies)} if self._tail else None

    def _chunk(
        self, number: int, delta: Mapping[str, Any], *, reason: str | None = None, logprobs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "choices": [choice], **self._tail}


class CompletionChunks:
    """Chunks of a completion."""

    def __init__(self, job: Job, *, copies: int, includes_usage: bool) -> None:
        self._head = completion_head(job)
        self._copies = copies
        self._tail: dict[str, Any] = {"usage": None} if includes_usage else {}
        self._lengths: dict[int, int] = {}

    def start(self, number: int) -> list[dict[str, Any]]:
        return []

    def piece(self, number: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        text, offset = delta.get("text", ""), self._lengths.get(number, 0)
        self._lengths[number] = offset + len(text)
        logprobs = legacy_logprobs(delta["logprobs"], offset) if delta.get("logprobs") else None
        return self._chunk(number, text, logprobs=logprobs)

    def end(self, number: int, job: Job) -> list[dict[str, Any]]:
        return [self._chunk(number, "", reason=finish_reason(job.result or {}))]

    def usage(self, jobs: Sequence[Job]) -> dict[str, Any] | None:
        return {**self._head, "choices": [], "usage": sum_usage(jobs, self._copies)} if self._tail else None

    def _chunk(
        self, number: int, text: str, *, reason: str | None = None, logprobs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return {**self._head, "choices": [choice], **self._tail}


def _call_delta(call: Mapping[str, Any]) -> dict[str, Any]:
    """A piece of a tool call. Its first one has the id and the name, later ones only more of the arguments."""
    function = {name: call[name] for name in ("name", "arguments") if call.get(name) is not None}
    if call.get("id") is None:
        return {"index": call["index"], "function": function}
    return {"index": call["index"], "id": call["id"], "type": "function", "function": {"arguments": "", **function}}
