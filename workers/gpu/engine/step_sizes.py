"""Padded sizes of steps on a GPU: few enough to capture a CUDA graph for each, close enough to waste little work."""

from bisect import bisect_left
from collections.abc import Iterator

_DECODE = (1, 2, 4, 8, *range(16, 129, 16), *range(160, 513, 32), *range(576, 1025, 64))
_TOKENS = (
    *range(16, 65, 16),
    *range(96, 257, 32),
    *range(320, 513, 64),
    *range(640, 1025, 128),
    *range(1280, 2049, 256),
)
_REQUESTS = (16, 64, 128, 256, 512)


class StepSizes:
    """Sizes for steps of up to ``max_tokens`` tokens, more than one for each of up to ``max_requests`` requests."""

    def __init__(self, max_tokens: int, max_requests: int) -> None:
        self._decode = _up_to(_DECODE, max_requests)
        self._tokens = _up_to(_TOKENS, max_tokens)
        self._requests = _up_to(_REQUESTS, max_requests + 1)

    @property
    def max_decode(self) -> int:
        """The most requests of a step that has one token of each."""
        return self._decode[-1]

    def pad(self, tokens: int, requests: int) -> tuple[int, int]:
        """Padded tokens and requests. With one token for each request they stay equal, else one request is left for padding."""
        if tokens == requests:
            size = self._decode[bisect_left(self._decode, requests)]
            return size, size
        padded_requests = self._requests[bisect_left(self._requests, requests + 1)]
        # More tokens than requests, so that the two kinds of steps never have the same size.
        return self._tokens[bisect_left(self._tokens, max(tokens, padded_requests + 1))], padded_requests

    def all(self) -> Iterator[tuple[int, int]]:
        """Every padded size, the largest first, so that smaller graphs can use the memory of larger ones."""
        for tokens in reversed(self._tokens):
            fitting = [size for size in self._requests if size < tokens]
            yield from ((tokens, requests) for requests in reversed(fitting))
        yield from ((size, size) for size in reversed(self._decode))


def _up_to(sizes: tuple[int, ...], largest: int) -> tuple[int, ...]:
    return (*(size for size in sizes if size < largest), largest)
