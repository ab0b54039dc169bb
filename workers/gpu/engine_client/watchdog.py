"""Watchdog of an engine process: how long it has been silent, or has held requests without completing a step."""

from workers.gpu.engine.messages import Heartbeat, Message, PhaseUpdate, StepOutput


class Watchdog:
    """Times are passed in, in seconds."""

    def __init__(self, now: float) -> None:
        self._last_message = self._last_progress = now
        self._steps = -1
        self._ready = False

    def observe(self, message: Message | None, *, holds_requests: bool, now: float) -> None:
        """Record a message, or None when none arrived; ``holds_requests``: whether the process has work to do."""
        if message is not None:
            self._last_message = now
        # Steps of a long prefill produce no tokens; only the heartbeat shows them.
        stepped = isinstance(message, Heartbeat) and message.steps != self._steps
        if isinstance(message, Heartbeat):
            self._steps = message.steps
        if isinstance(message, PhaseUpdate) and message.phase == "ready":
            self._ready = True
        if stepped or isinstance(message, StepOutput) or not holds_requests or not self._ready:
            self._last_progress = now

    def stalled_for(self, now: float) -> tuple[float, str]:
        """For how many seconds the process has stalled, and what it failed to do."""
        silent, stuck = now - self._last_message, now - self._last_progress
        return (silent, "sent no heartbeat") if silent >= stuck else (stuck, "held requests without completing a step")
