"""What every engine can do, whatever runs the model. A new engine is a class with these methods."""

from collections.abc import Callable
from typing import Protocol

from workers.gpu.engine.messages import GenerationRequest, Heartbeat, Phase, StepOutput

Report = Callable[[Phase, str, float], None]
"""Called with the phase of the start, what is being done, and the fraction of the phase that is behind."""


class EngineDied(Exception):
    """The engine can serve nothing any more; its process has to be started again."""


class Engine(Protocol):
    """Generates for many requests at once.

    ``attention`` is the kernel that it attends by, known after ``load``; empty if there is nothing to tell.
    ``next_step`` is called from one thread, ``submit``, ``cancel`` and ``stats`` from others, all only after ``load``.
    """

    @property
    def attention(self) -> str: ...

    def load(self, report: Report) -> None:
        """Load the model and warm it up; afterwards the first request is as fast as the next. Raises whatever prevents it."""
        ...

    def submit(self, request: GenerationRequest) -> None:
        """Take a request. It never raises for a request at fault: that one ends ``failed`` in a following step."""
        ...

    def cancel(self, id: str) -> None:
        """End a request within two tokens. Unknown ids are ignored."""
        ...

    def next_step(self, timeout: float) -> StepOutput | None:
        """The next step's tokens and ends; None if there are none within ``timeout`` seconds. Raises EngineDied."""
        ...

    def stats(self) -> Heartbeat:
        """What the engine holds now. Cheap: called every second."""
        ...

    def close(self) -> None:
        """Give everything back. Requests that have not ended are dropped."""
        ...
