"""Interface of every engine. To add an engine, write a class with these methods."""

from collections.abc import Callable
from typing import Protocol

from workers.gpu.engine.messages import GenerationRequest, Heartbeat, Phase, StepOutput

PhaseCallback = Callable[[Phase, str, float], None]
"""Called with the phase of the start, what is being done, and the completed fraction of the phase."""


class EngineDied(Exception):
    """The engine cannot serve any more; its process has to be restarted."""


class Engine(Protocol):
    """Generates tokens for many requests at once.

    ``next_step`` is called from one thread, ``add_request``, ``abort_request`` and ``report_load`` from others, all
    only after ``load``.
    """

    @property
    def attention_backend(self) -> str:
        """Name of the attention backend, known after ``load``; empty if there is none."""
        ...

    @property
    def max_context(self) -> int:
        """Tokens that prompt and output of one request may have together, known after ``load``."""
        ...

    def load(self, report: PhaseCallback) -> None:
        """Load the model and warm it up, so that the first request is as fast as the next. Raises whatever prevents it."""
        ...

    def add_request(self, request: GenerationRequest) -> None:
        """Accept a request. Never raises for an invalid request: it finishes as ``failed`` in a following step."""
        ...

    def abort_request(self, id: str) -> None:
        """End a request within two tokens. Unknown ids are ignored."""
        ...

    def next_step(self, timeout: float) -> StepOutput | None:
        """The output of the next step, or None after ``timeout`` seconds. Raises EngineDied."""
        ...

    def report_load(self) -> Heartbeat:
        """Current load. Cheap: called every second."""
        ...

    def unload(self) -> None:
        """Release everything. Unfinished requests are dropped."""
        ...
