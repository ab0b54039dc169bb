"""The engine of a model without its process, for tests that have to change the model while it serves."""

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from shared.models.catalogue import ModelEntry
from tests.flows.engine_outputs import PATIENCE
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput


@dataclass
class Ended:
    tokens: list[int]
    reason: FinishReason
    detail: str


class InProcessEngine:
    """Serves the model of a folder on the CPU while the ``with`` block lasts."""

    def __init__(self, folder: Path, **entry: Any) -> None:
        from workers.gpu.engine.transformers_engine import TransformersEngine

        shape: dict[str, Any] = {"dtype": "float32", "max_context": 1024, "max_in_flight": 4, **entry}
        self._engine = TransformersEngine(ModelEntry(name="here", url=str(folder), **shape), folder)
        self._asked = 0

    def __enter__(self) -> "InProcessEngine":
        self._engine.load(lambda phase, message, fraction: None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._engine.close()

    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def model(self) -> Any:
        return self._engine._manager.model

    def ask(self, prompt: list[int], tokens: int = 8, **options: Any) -> Ended:
        """One request from its start to its end."""
        self._asked += 1
        id, got = str(self._asked), []
        self._engine.submit(GenerationRequest(id, prompt, tokens, [], **options))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            step = self._engine.next_step(1.0) or StepOutput([], [])
            for _, new in step.tokens:
                got += new
            for _, reason, detail in step.finished:
                return Ended(got, reason, detail)
        raise AssertionError(f"request {id} did not end within {PATIENCE} s")
