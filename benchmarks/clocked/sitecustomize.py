"""For ``benchmarks.streams`` alone: an engine process that finds this on its path writes the time instead of echoing.

Each token then says when the engine made it, and whoever receives it knows how long it was on its way.
"""

import sys
import time

if "workers.gpu.engine" in sys.orig_argv:
    from workers.gpu.engine.echo import EchoEngine
    from workers.gpu.engine.messages import StepOutput

    class Clocked:
        """In place of one step of the echo engine."""

        _step_of_echo = EchoEngine._step

        def step(self: EchoEngine) -> StepOutput:
            step = Clocked._step_of_echo(self)
            stamp = list(f"{time.time():.4f} ".encode())
            return StepOutput([(id, stamp) for id, _ in step.tokens], step.finished)

    EchoEngine._step = Clocked.step  # type: ignore[method-assign]
