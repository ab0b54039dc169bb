"""Chunks of streamed chat completions and completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.jobs.models import Job
from shared.openai.chat import chat_logprobs, response_head, service_tier
from shared.openai.completions import legacy_logprobs
from shared.openai.completions import response_head as completion_head
from shared.openai.results import finish_reason, sum_usage


class _Chunks:
    """The parts that chunks of both calls share. A client that asks for usage gets the field in every chunk."""

    def __init__(self, head: Mapping[str, Any], *, copies: int, includes_usage: bool) -> None:
        self._head, self._copies, self._includes_usage = head, copies, includes_usage

    def usage(self, jobs: Sequence[Job]) -> dict[str, Any] | None:
        return {**self._head, "choices": [], "usage": sum_usage(jobs, self._copies)} if self._includes_usage else None

    def _with_choice(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._includes_usage else chunk


class ChatChunks(_Chunks):
    """Chunks of a chat completion. The first one of each choice has the role, the last one the reason for its end."""

    def __init__(self, job: Job, *, copies: int, includes_usage: bool) -> None:
        head = {**response_head(job, "chat.completion.chunk"), "service_tier": service_tier(job)}
        super().__init__(head, copies=copies, includes_usage=includes_usage)

    def start(self, number: int) -> list[dict[str, Any]]:
        return [self._chunk(number, {"role": "assistant", "content": "", "refusal": None})]

    def pieces(self, number: int, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        content: dict[str, Any] = {}
        if delta.get("text"):
            content["content"] = delta["text"]
        if delta.get("reasoning"):
            content["reasoning_content"] = content["reasoning"] = delta["reasoning"]
        logprobs = chat_logprobs(delta["logprobs"]) if delta.get("logprobs") else None
        # Clients such as LlamaIndex read one piece of a call per chunk, as OpenAI sends them.
        calls = [{"tool_calls": [_call_delta(call)]} for call in delta.get("tool_calls") or ()]
        first, *others = calls or [{}]
        return [self._chunk(number, {**content, **first}, logprobs=logprobs), *(self._chunk(number, other) for other in others)]

    def end(self, number: int, job: Job) -> list[dict[str, Any]]:
        return [self._chunk(number, {}, reason=finish_reason(job.result or {}))]

    def _chunk(
        self, number: int, delta: Mapping[str, Any], *, reason: str | None = None, logprobs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return self._with_choice({"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason})


class CompletionChunks(_Chunks):
    """Chunks of a completion."""

    def __init__(self, job: Job, *, copies: int, includes_usage: bool) -> None:
        super().__init__(completion_head(job), copies=copies, includes_usage=includes_usage)
        self._lengths: dict[int, int] = {}

    def start(self, number: int) -> list[dict[str, Any]]:
        return []

    def pieces(self, number: int, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        text, offset = delta.get("text", ""), self._lengths.get(number, 0)
        self._lengths[number] = offset + len(text)
        logprobs = legacy_logprobs(delta["logprobs"], offset) if delta.get("logprobs") else None
        return [self._chunk(number, text, logprobs=logprobs)]

    def end(self, number: int, job: Job) -> list[dict[str, Any]]:
        return [self._chunk(number, "", reason=finish_reason(job.result or {}))]

    def _chunk(
        self, number: int, text: str, *, reason: str | None = None, logprobs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return self._with_choice({"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason})


def _call_delta(call: Mapping[str, Any]) -> dict[str, Any]:
    """A piece of a tool call. Its first one has the id and the name, later ones only more of the arguments."""
    function = {name: call[name] for name in ("name", "arguments") if call.get(name) is not None}
    if call.get("id") is None:
        return {"index": call["index"], "function": function}
    return {"index": call["index"], "id": call["id"], "type": "function", "function": {"arguments": "", **function}}
