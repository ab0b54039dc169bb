"""Padded sizes of steps: few enough to capture a CUDA graph for each, close enough to waste little work."""

from bisect import bisect_left

# Prefill: the work grows with the tokens, so little padding is affordable; small steps are frequent.
_PREFILL = (
    *range(64, 513, 64),
    *range(640, 1025, 128),
    *range(1280, 2049, 256),
    *range(2560, 4097, 512),
    *range(5120, 8193, 1024),
)
# Decode: one token per request. Beyond some hundreds, the arithmetic costs as much as reading the weights.
_DECODE = (1, 2, 4, 8, *range(16, 65, 16), *range(96, 513, 32), *range(576, 1025, 64))

# Prefill steps that also read from the cache are rare and run without a graph, padded to multiples of this.
CACHE_READ = 1024


class GraphSizes:
    """Sizes for prefill steps of up to ``max_tokens`` tokens and decode steps of up to ``max_requests`` requests."""

    def __init__(self, max_tokens: int, max_requests: int) -> None:
        self.prefill = _up_to(_PREFILL, max_tokens)
        self.decode = _up_to(_DECODE, max_requests)

    def pad_prefill(self, tokens: int) -> int:
        """Padded size of a prefill step."""
        return self.prefill[bisect_left(self.prefill, tokens)]

    def pad_decode(self, requests: int) -> int:
        """Padded size of a decode step."""
        return self.decode[bisect_left(self.decode, requests)]


def _up_to(sizes: tuple[int, ...], largest: int) -> tuple[int, ...]:
    return (*(size for size in sizes if size < largest), largest)
