"""Collects what an engine process gives, so that a test can wait for it."""

import threading
from collections.abc import Callable

from workers.gpu.engine.messages import FinishReason, StepOutput

PATIENCE = 60.0


class Answers:
    """Its ``on_step`` is the process's; ``ends`` has every end of a request, though there must be one.

    Each wait fails, naming what it waited for, when its patience (seconds) is over.
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

    def until(self, what: str, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, patience), f"no {what} within {patience} s"

    def end(self, id: str, patience: float = PATIENCE) -> FinishReason:
        self.until(f"end of {id}", lambda: id in self.ends, patience)
        return self.ends[id][0][0]
