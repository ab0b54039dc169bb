"""How fast an engine goes, from the counts of its beats."""

from workers.gpu.engine.messages import Heartbeat


class ThroughputMeter:
    """Tokens and steps a second between the beats that it is shown. Times are passed in, in seconds."""

    def __init__(self) -> None:
        self._last: tuple[float, Heartbeat] | None = None
        self._told: dict[str, float] = {"tokens_per_second": 0.0, "steps_per_second": 0.0}

    def of(self, beat: Heartbeat, now: float) -> dict[str, float]:
        """The rates until this beat. Within a second of the one before, those from then."""
        if self._last is None:
            self._last = (now, beat)
            return self._told
        then, before = self._last
        if now - then < 1.0:
            return self._told
        # A new engine process counts from zero.
        anew = beat.tokens < before.tokens or beat.steps < before.steps
        tokens, steps = (beat.tokens, beat.steps) if anew else (beat.tokens - before.tokens, beat.steps - before.steps)
        self._last = (now, beat)
        self._told = {
            "tokens_per_second": round(tokens / (now - then), 2),
            "steps_per_second": round(steps / (now - then), 2),
        }
        return self._told
