"""Log-probabilities: from token ids to what clients read, and only for tokens whose text is part of the answer."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from workers.gpu.engine.messages import TokenLogprobs

TokenBytes = Callable[[int], bytes]


def describe_logprobs(entry: TokenLogprobs, token_bytes: TokenBytes) -> dict[str, Any]:
    """A token with its text, bytes and log-probability, and the most likely ones in ``top``."""
    token, logprob, likely = entry
    return {
        **_describe(token, logprob, token_bytes),
        "top": [_describe(other, value, token_bytes) for other, value in likely],
    }


def describe_prompt_logprobs(
    ids: Sequence[int], entries: Sequence[TokenLogprobs], token_bytes: TokenBytes
) -> list[dict[str, Any]]:
    """The same for the tokens of a prompt, the first of which follows nothing."""
    first = {**_describe(ids[0], 0.0, token_bytes), "logprob": None, "top": []}
    return [first, *(describe_logprobs(entry, token_bytes) for entry in entries)]


def _describe(token: int, logprob: float, token_bytes: TokenBytes) -> dict[str, Any]:
    data = token_bytes(token)
    return {
        "token": data.decode(errors="replace"),
        "id": token,
        "logprob": logprob,
        "bytes": list(data),
    }


class LogprobQueue:
    """Entries of generated tokens, until it is certain that their text is part of the answer."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._waiting: deque[tuple[int, int, TokenLogprobs]] = deque()

    def add(self, entry: TokenLogprobs, start: int, end: int) -> None:
        """Add a token whose text has these positions in the output."""
        self._waiting.append((start, end, entry))

    def release(self, end: int) -> list[dict[str, Any]]:
        """The entries of tokens whose text ends at or before a position."""
        released = []
        while self._waiting and self._waiting[0][1] <= end:
            released.append(describe_logprobs(self._waiting.popleft()[2], self._token_bytes))
        return released

    def release_before(self, cut: int) -> list[dict[str, Any]]:
        """The entries of tokens that begin before the position at which the text was cut; the others are dropped."""
        released = [describe_logprobs(entry, self._token_bytes) for start, _, entry in self._waiting if start < cut]
        self._waiting.clear()
        return released
