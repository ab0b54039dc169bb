"""Deterministic requests: what runs beside them changes neither their tokens nor a bit of their log-probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.flows.in_process_engine import FinishedRequest, InProcessEngine
from tests.flows.test_engine_batching import prompt_of
from tests.flows.tiny_model import make_tiny_model
from workers.gpu.engine.messages import GenerationRequest

pytest.importorskip("torch")


def requests(**options: Any) -> list[GenerationRequest]:
    """A long prompt, a short one, and one that shares its beginning with the first."""
    common = {"logprobs": 3, "deterministic": True, **options}
    long = prompt_of(1, 700)
    return [
        GenerationRequest(f"own {n}", prompt, 24, [], **common) for n, prompt in enumerate((long, prompt_of(2, 5), long[:600]))
    ]


def others(count: int, first: int) -> list[GenerationRequest]:
    lengths = (3, 40, 260, 520)
    return [GenerationRequest(f"other {n}", prompt_of(n, lengths[n % 4]), 5 + n % 30, []) for n in range(first, first + count)]


def answers(outputs: dict[str, FinishedRequest], ids: Sequence[str]) -> list[tuple[Any, ...]]:
    return [(outputs[id].tokens, outputs[id].logprobs, outputs[id].reason) for id in ids]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_requests_do_not_change_a_deterministic_one(tmp_path: Path, dtype: str) -> None:
    folder = make_tiny_model(tmp_path / "tiny", hidden_size=128, intermediate_size=352)
    with InProcessEngine(folder, dtype=dtype, max_in_flight=8) as engine:
        for sampling in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 7}):
            own = requests(**sampling)
            ids = [request.id for request in own]
            alone = [answers(engine.run([request]), [request.id])[0] for request in own]
            assert {reason for _, _, reason in alone} == {"length"}
            assert answers(engine.run([*own[:1], *others(5, 20), *own[1:], *others(3, 40)]), ids) == alone
