"""The sizes to which steps are padded: few enough for a CUDA graph of each, close enough to waste little."""

from bisect import bisect_left

# Prompts: the arithmetic grows with the tokens, so a step must not be padded by much; short steps come often.
_PROMPTS = (
    *range(64, 513, 64),
    *range(640, 1025, 128),
    *range(1280, 2049, 256),
    *range(2560, 4097, 512),
    *range(5120, 8193, 1024),
)
# Answers: a token for each request. From some hundreds on, their arithmetic costs as much as reading the weights.
_ANSWERS = (1, 2, 4, 8, *range(16, 65, 16), *range(96, 513, 32), *range(576, 1025, 64))

# Prompts that read from the cache too are rare, and run without a graph.
CACHE_READ = 1024


class GraphSizes:
    """Sizes for steps of up to ``tokens`` tokens of prompts, or of up to ``requests`` tokens of answers."""

    def __init__(self, tokens: int, requests: int) -> None:
        self.prompts = _up_to(_PROMPTS, tokens)
        self.answers = _up_to(_ANSWERS, requests)

    def prompt(self, tokens: int) -> int:
        """What a step of so many tokens of prompts is padded to."""
        return self.prompts[bisect_left(self.prompts, tokens)]

    def answer(self, requests: int) -> int:
        """What a step of so many tokens of answers is padded to."""
        return self.answers[bisect_left(self.answers, requests)]


def _up_to(sizes: tuple[int, ...], largest: int) -> tuple[int, ...]:
    return (*(size for size in sizes if size < largest), largest)
