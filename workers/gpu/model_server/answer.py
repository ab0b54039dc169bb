"""Answer of a server: its chunks become deltas, and the deltas the result of the job.

Each delta is stored with its number of tokens, from which a later attempt continues the text.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.jobs.deltas import Delta, merge_deltas
from workers.gpu.token_timer import TokenTimer

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")


@dataclass(frozen=True)
class EarlierText:
    """What earlier attempts have sent: one delta, and the number of its tokens as far as that is known."""

    delta: Delta = field(default_factory=dict)
    tokens: int = 0


def fingerprint_of(url: str, body: Mapping[str, Any]) -> str:
    """Identifies what a text continues: the server and the whole request."""
    data = json.dumps([url, body], sort_keys=True).encode()
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def format_delta(delta: Mapping[str, Any], tokens: int) -> str:
    """A line of the record."""
    return f"{json.dumps([delta, tokens], ensure_ascii=False, separators=(',', ':'))}\n"


def parse_record(record: str, fingerprint: str) -> EarlierText | None:
    """What earlier attempts have sent; None if it answers another request."""
    # Not splitlines, as JSON leaves some line separators as they are.
    first, *lines = record.split("\n")
    if first != fingerprint:
        return None
    delta: Delta = {}
    count = 0
    for line in filter(None, lines):
        piece, tokens = json.loads(line)
        merge_deltas(delta, piece)
        count += tokens
    return EarlierText(delta, count)


class ServerAnswer:
    """The answer to one request. ``earlier`` is the part of it that was sent before."""

    def __init__(self, earlier: EarlierText | None = None) -> None:
        self.whole: Delta = {}
        self.tokens = 0
        """Tokens of this request: as many as the server reports, and until then one for each chunk or log-probability."""
        self.cached_tokens = 0
        self.timer = TokenTimer()
        self.finish_reason = ""
        self._sent_tokens = 0
        self._earlier_tokens = 0
        if earlier is not None:
            merge_deltas(self.whole, earlier.delta)
            self._earlier_tokens = earlier.tokens

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole answer."""
        return self._earlier_tokens + self.tokens

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, without the earlier part of the answer; 0 if the server did not report them."""
        return max(0, self._sent_tokens - self._earlier_tokens)

    def add_chunk(self, chunk: Mapping[str, Any]) -> tuple[Delta, int]:
        """What a chunk adds, and its number of tokens."""
        if usage := chunk.get("usage"):
            self._take_usage(usage)
        choices = chunk.get("choices") or ()
        if not choices:
            return {}, 0
        choice = choices[0]
        delta = _chat_delta(choice) if "delta" in choice else _completion_delta(choice)
        if choice.get("finish_reason"):
            reason = str(choice["finish_reason"])
            self.finish_reason = reason if reason in FINISH_REASONS else "stop"
        if not delta:
            return {}, 0
        tokens = len(delta.get("logprobs", ())) or 1
        self.tokens += 0 if chunk.get("usage") else tokens
        merge_deltas(self.whole, delta)
        return delta, tokens

    def _take_usage(self, usage: Mapping[str, Any]) -> None:
        self.tokens = int(usage.get("completion_tokens") or 0)
        self._sent_tokens = int(usage.get("prompt_tokens") or 0)
        self.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def _chat_delta(choice: Mapping[str, Any]) -> Delta:
    piece = choice["delta"] or {}
    delta: Delta = {}
    if piece.get("content"):
        delta["text"] = piece["content"]
    elif piece.get("refusal"):
        delta["text"] = piece["refusal"]
    # Servers use one name or the other, some both.
    if reasoning := piece.get("reasoning_content") or piece.get("reasoning"):
        delta["reasoning"] = reasoning
    if calls := [_call(call, place) for place, call in enumerate(piece.get("tool_calls") or ())]:
        delta["tool_calls"] = calls
    content = (choice.get("logprobs") or {}).get("content")
    if content:
        delta["logprobs"] = [
            {**_token(entry), "top": [_token(top) for top in entry.get("top_logprobs") or ()]} for entry in content
        ]
    return delta


def _call(call: Mapping[str, Any], place: int) -> dict[str, Any]:
    function = call.get("function") or {}
    piece: dict[str, Any] = {"index": call.get("index", place), "arguments": function.get("arguments") or ""}
    # Only the first piece has them, but some servers send them empty in all.
    if call.get("id"):
        piece["id"] = call["id"]
    if function.get("name"):
        piece["name"] = function["name"]
    return piece


def _completion_delta(choice: Mapping[str, Any]) -> Delta:
    delta: Delta = {"text": choice["text"]} if choice.get("text") else {}
    scores = choice.get("logprobs") or {}
    if scores.get("content"):
        # llama.cpp has the form of chat completions here too.
        delta["logprobs"] = _chat_delta({"delta": {}, "logprobs": scores})["logprobs"]
    elif scores.get("tokens"):
        tops = scores.get("top_logprobs") or [None] * len(scores["tokens"])
        delta["logprobs"] = [
            {**_token({"token": token, "logprob": logprob}), "top": _top(top)}
            for token, logprob, top in zip(scores["tokens"], scores["token_logprobs"], tops, strict=False)
        ]
    return delta


def _top(top: Mapping[str, float] | None) -> Sequence[dict[str, Any]]:
    return [_token({"token": token, "logprob": logprob}) for token, logprob in (top or {}).items()]


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    data = entry.get("bytes")
    return {
        "token": entry["token"],
        # Of the servers, only llama.cpp sends it.
        **({"id": entry["id"]} if isinstance(entry.get("id"), int) else {}),
        "logprob": entry["logprob"],
        "bytes": list(data) if data is not None else list(str(entry["token"]).encode()),
    }
