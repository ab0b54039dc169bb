"""The workload that every figure is measured on: prompts and answers of log-normal lengths, from a seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

SEED = 20261124
PROMPT_MEAN, ANSWER_MEAN, SPREAD = 220, 200, 0.6
FEWEST, MOST = 8, 1024


@dataclass(frozen=True)
class Ask:
    """One request: the tokens of its prompt, and how many its answer has."""

    prompt: list[int]
    answer: int

    @property
    def text(self) -> str:
        """The prompt in the words of the benchmark's tokenizer."""
        return " ".join(f"w{token}" for token in self.prompt)


def workload(count: int, vocabulary: int, *, scale: float = 1.0, seed: int = SEED) -> list[Ask]:
    """``scale`` shortens everything, for machines on which it would take hours."""
    chance = random.Random(seed)
    return [
        Ask(
            [chance.randrange(10, vocabulary) for _ in range(_length(chance, PROMPT_MEAN * scale))],
            _length(chance, ANSWER_MEAN * scale),
        )
        for _ in range(count)
    ]


def arrivals(rate: float, seed: int = SEED) -> Iterator[float]:
    """Seconds from the start at which requests come, without memory, ``rate`` a second."""
    chance, at = random.Random(seed), 0.0
    while True:
        at += chance.expovariate(rate)
        yield at


def _length(chance: random.Random, mean: float) -> int:
    # The mean of a log-normal is exp(mu + sigma²/2) times its scale.
    length = mean * chance.lognormvariate(-(SPREAD**2) / 2, SPREAD)
    return max(2, min(MOST, max(min(FEWEST, int(mean)), round(length))))
