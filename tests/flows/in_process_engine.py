"""Engine of a model inside the test process, for tests that change the model while it serves."""

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from shared.models.catalogue import ModelEntry
from tests.flows.engine_outputs import PATIENCE
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput


@dataclass
class FinishedRequest:
    tokens: list[int]
    reason: FinishReason
    detail: str


class InProcessEngine:
    """Serves the model in a folder on the CPU while the ``with`` block lasts."""

    def __init__(self, folder: Path, **entry: Any) -> None:
        from workers.gpu.engine.transformers_engine import TransformersEngine

        fields: dict[str, Any] = {"dtype": "float32", "max_context": 1024, "max_in_flight": 4, **entry}
        self.engine = TransformersEngine(ModelEntry(name="tiny", url=str(folder), **fields), folder)
        self._count = 0

    def __enter__(self) -> "InProcessEngine":
        self.engine.load(lambda phase, message, fraction: None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.engine.unload()

    @property
    def model(self) -> Any:
        return self.engine.model

    def generate(self, prompt: list[int], tokens: int = 8, **options: Any) -> FinishedRequest:
        """Run one request to its end."""
        self._count += 1
        id, generated = str(self._count), []
        self.engine.add_request(GenerationRequest(id, prompt, tokens, [], **options))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            step = self.engine.next_step(1.0) or StepOutput([], [])
            for _, new in step.tokens:
                generated += new
            for _, reason, detail in step.finished:
                return FinishedRequest(generated, reason, detail)
        raise AssertionError(f"request {id} did not end within {PATIENCE} s")
