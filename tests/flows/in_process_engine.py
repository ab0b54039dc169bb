"""Engine of a model inside the test process, for tests that change the model while it serves."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from shared.models.catalogue import ModelEntry
from tests.flows.engine_outputs import PATIENCE
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput, TokenLogprobs


@dataclass
class FinishedRequest:
    tokens: list[int] = field(default_factory=list)
    reason: FinishReason | None = None
    detail: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    cached_tokens: int = 0


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
        id = str(self._count)
        return self.run([GenerationRequest(id, prompt, tokens, options.pop("stops", []), **options)])[id]

    def run(self, requests: Sequence[GenerationRequest]) -> dict[str, FinishedRequest]:
        """Run requests side by side to their ends."""
        outputs = {request.id: FinishedRequest() for request in requests}
        for request in requests:
            self.engine.add_request(request)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            step = self.engine.next_step(1.0) or StepOutput([], [])
            for id, new in step.tokens:
                outputs[id].tokens += new
            for id, entries in step.logprobs:
                outputs[id].logprobs += entries
            for id, entries in step.prompt_logprobs:
                outputs[id].prompt_logprobs += entries
            for id, count in step.cached_tokens:
                outputs[id].cached_tokens = count
            for id, reason, detail in step.finished:
                assert outputs[id].reason is None
                outputs[id].reason, outputs[id].detail = reason, detail
            if all(output.reason for output in outputs.values()):
                return outputs
        raise AssertionError(f"requests without an end within {PATIENCE} s: {outputs.keys()}")
