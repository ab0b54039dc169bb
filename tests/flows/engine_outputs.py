"""Recorder of an engine process's output, with which a test can wait for it."""

import threading
from collections.abc import Callable

from testing.waiting import LONG_SECONDS
from workers.gpu.engine.messages import FinishReason, StepOutput

PATIENCE = LONG_SECONDS


class OutputRecorder:
    """Its ``on_step`` is that of an EngineClient; ``ends`` has every end of a request, of which there must be one.

    Each wait fails after its timeout (seconds), naming what it waited for.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}
        self.ends: dict[str, list[tuple[FinishReason, str]]] = {}
        self._changed = threading.Condition()

    def on_step(self, step: StepOutput) -> None:
        with self._changed:
            for id, ids in step.tokens:
                self.tokens.setdefault(id, []).extend(ids)
            for id, reason, detail in step.finished:
                self.ends.setdefault(id, []).append((reason, detail))
            self._changed.notify_all()

    def wait_for(self, what: str, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout), f"no {what} within {timeout} s"

    def finish_reason(self, id: str, timeout: float = PATIENCE) -> FinishReason:
        self.wait_for(f"end of {id}", lambda: id in self.ends, timeout)
        return self.ends[id][0][0]
