"""Workload of every benchmark: prompts and outputs of log-normal lengths, from a seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

SEED = 20261124
PROMPT_MEAN, OUTPUT_MEAN, SPREAD = 220, 200, 0.6
MIN_TOKENS, MAX_TOKENS = 8, 1024


@dataclass(frozen=True)
class WorkloadRequest:
    """One request: the tokens of its prompt, and how many to generate."""

    prompt: list[int]
    output_tokens: int

    @property
    def text(self) -> str:
        """The prompt as text, in the words of the benchmark's tokenizer."""
        return " ".join(f"w{token}" for token in self.prompt)


def workload(count: int, vocabulary: int, *, scale: float = 1.0, seed: int = SEED) -> list[WorkloadRequest]:
    """``scale`` multiplies all lengths, for machines on which the workload would take hours."""
    generator = random.Random(seed)
    return [
        WorkloadRequest(
            [generator.randrange(10, vocabulary) for _ in range(_length(generator, PROMPT_MEAN * scale))],
            _length(generator, OUTPUT_MEAN * scale),
        )
        for _ in range(count)
    ]


def arrivals(rate: float, seed: int = SEED) -> Iterator[float]:
    """Arrival times of a Poisson process with ``rate`` requests per second, in seconds from the start."""
    generator, at = random.Random(seed), 0.0
    while True:
        at += generator.expovariate(rate)
        yield at


def _length(generator: random.Random, mean: float) -> int:
    # The mean of a log-normal is exp(mu + sigma²/2) times its scale.
    length = mean * generator.lognormvariate(-(SPREAD**2) / 2, SPREAD)
    return max(2, min(MAX_TOKENS, max(min(MIN_TOKENS, int(mean)), round(length))))
