"""Throughput of an engine, computed from the counters of its heartbeats."""

from workers.gpu.engine.messages import Heartbeat


class ThroughputMeter:
    """Tokens and steps per second between heartbeats. Times are passed in, in seconds."""

    def __init__(self) -> None:
        self._last: tuple[float, Heartbeat] | None = None
        self._rates: dict[str, float] = {"tokens_per_second": 0.0, "steps_per_second": 0.0}

    def update_rates(self, heartbeat: Heartbeat, now: float) -> dict[str, float]:
        """The rates up to this heartbeat. Within a second of the previous one, the previous rates."""
        if self._last is None:
            self._last = (now, heartbeat)
            return self._rates
        then, previous = self._last
        if now - then < 1.0:
            return self._rates
        # A new engine process counts from zero.
        is_new = heartbeat.tokens < previous.tokens or heartbeat.steps < previous.steps
        tokens = heartbeat.tokens if is_new else heartbeat.tokens - previous.tokens
        steps = heartbeat.steps if is_new else heartbeat.steps - previous.steps
        self._last = (now, heartbeat)
        self._rates = {
            "tokens_per_second": round(tokens / (now - then), 2),
            "steps_per_second": round(steps / (now - then), 2),
        }
        return self._rates
