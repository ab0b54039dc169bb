"""The time per output token of one attempt, for metrics."""

import time
from collections.abc import Callable


class TokenTimer:
    """Measures from the arrival of the first tokens to the arrival of the last. Not safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.first_at = self._last_at = 0.0
        """Time of the first tokens, on the clock; 0 before them."""
        self._tokens = self._later_tokens = 0

    def count(self, tokens: int) -> None:
        """Note that tokens have arrived."""
        if tokens <= 0:
            return
        self._last_at = self._clock()
        if self._tokens:
            self._later_tokens += tokens
        else:
            self.first_at = self._last_at
        self._tokens += tokens

    @property
    def seconds_per_token(self) -> float | None:
        """Seconds for each token after the first ones; None if no more arrived."""
        return (self._last_at - self.first_at) / self._later_tokens if self._later_tokens else None
