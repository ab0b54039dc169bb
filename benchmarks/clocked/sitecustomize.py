"""Patch for ``benchmarks.streams``: an engine process with this file on its path generates timestamps instead of echoing.

A receiver can then compute each token's latency from the token itself.
"""

import sys
import time

if "workers.gpu.engine" in sys.orig_argv:
    from workers.gpu.engine.echo import EchoEngine
    from workers.gpu.engine.messages import StepOutput

    class TimestampEngine:
        """Replaces the step of the echo engine."""

        _echo_step = EchoEngine._step

        def step(self: EchoEngine) -> StepOutput:
            step = TimestampEngine._echo_step(self)
            stamp = list(f"{time.time():.4f} ".encode())
            return StepOutput([(id, stamp) for id, _ in step.tokens], step.finished)

    EchoEngine._step = TimestampEngine.step  # type: ignore[method-assign]
