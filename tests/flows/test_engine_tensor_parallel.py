"""Tensor parallelism: a model spread over two processes generates the same tokens, and lives and dies as one engine."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from llguidance import LLMatcher

from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from testing.fault_rig.processes import has_word, is_alive
from testing.waiting import wait_until
from tests.flows.engine_outputs import PATIENCE, OutputRecorder
from tests.flows.tiny_model import make_tiny_model
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine_client.engine_client import EngineClient

pytest.importorskip("torch")


class RankedEngine:
    """An engine of the tiny model with this many ranks, and its output."""

    def __init__(self, folder: Path, ranks: int) -> None:
        file = folder.parent / "models.json"
        entry = {"name": "tiny", "url": str(folder), "dtype": "float32", "max_context": 1024, "max_in_flight": 8}
        file.write_text(json.dumps([entry]))
        self.outputs = OutputRecorder()
        settings = Settings(models_file=file, data_dir=folder.parent)
        self.client = EngineClient(load_catalogue(file).get_model("tiny"), settings, on_step=self.outputs.on_step, ranks=ranks)
        self.client.start_engine()

    def submit(self, id: str, number: int, length: int, tokens: int, stops: list[int], **fields: Any) -> None:
        prompt = [(number * 31 + position * position * 7) % 100 for position in range(length)]
        self.client.submit_request(GenerationRequest(id, prompt, tokens, stops, **fields), timeout=PATIENCE)

    def all_ranks(self) -> list[psutil.Process]:
        assert self.client.pid is not None
        leader = psutil.Process(self.client.pid)
        return [leader, *(child for child in leader.children() if has_word(child, "--rank"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("ranks") / "tiny", byte_level=True)


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[RankedEngine]:
    engine = RankedEngine(folder, 1)
    yield engine
    engine.client.stop_engine()


@pytest.fixture(scope="module")
def spread(folder: Path) -> Iterator[RankedEngine]:
    """One engine for all tests, as each start imports torch in every rank. An engine restarts after a kill; the last test stops it."""
    engine = RankedEngine(folder, 2)
    yield engine
    engine.client.stop_engine()


CHANGES: list[dict[str, Any]] = [
    {},
    {"frequency_penalty": 0.5, "logit_bias": [(65, 3.0)], "logprobs": 1},
    {"grammar": LLMatcher.grammar_from_regex("[0-9]+[a-z]*"), "temperature": 1.0, "seed": 1},
    {"prompt_logprobs": 2, "repetition_penalty": 1.2},
]


def generate_mixed(engine: RankedEngine, stops: dict[int, list[int]]) -> dict[int, tuple[list[int], str]]:
    for n in range(24):
        size, limit = (3, 40, 260, 520)[n % 4], (1, 7, 30, 100)[n // 4 % 4]
        engine.submit(f"{len(stops)} {n}", n, size, limit, stops.get(n, []), **CHANGES[n // 3 % 4])
    ends = {n: engine.outputs.finish_reason(f"{len(stops)} {n}") for n in range(24)}
    return {n: (engine.outputs.tokens.get(f"{len(stops)} {n}", []), ends[n]) for n in range(24)}


def all_exited(processes: list[psutil.Process]) -> bool:
    return not any(is_alive(process) for process in processes)


def test_two_ranks_generate_what_one_process_does_with_stops_and_after_cancels(alone: RankedEngine, spread: RankedEngine) -> None:
    free = generate_mixed(alone, {})
    assert generate_mixed(spread, {}) == free
    assert len(spread.all_ranks()) == 2
    for n in range(3):
        spread.submit(f"cancelled {n}", 50 + n, 20, 900, [])
    for n in range(3):
        spread.outputs.wait_for("first tokens", lambda id=f"cancelled {n}": bool(spread.outputs.tokens.get(id)))
        spread.client.cancel_request(f"cancelled {n}")
        assert spread.outputs.finish_reason(f"cancelled {n}") == "cancelled"
    # A grammar may need the token that would be the stop token.
    stops = {
        n: [tokens[len(tokens) // 2]] for n, (tokens, _) in free.items() if n % 3 == 0 and "grammar" not in CHANGES[n // 3 % 4]
    }
    stopped = generate_mixed(spread, stops)
    assert stopped == generate_mixed(alone, stops)
    assert {stopped[n][1] for n in stops} == {"stop"}


@pytest.mark.slow_fault
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_others_and_requests_are_lost_once(spread: RankedEngine, rank: int) -> None:
    held, after = f"held {rank}", f"after {rank}"
    spread.submit(held, 1, 20, 1000, [])
    spread.outputs.wait_for("first token", lambda: bool(spread.outputs.tokens.get(held)))
    before = spread.all_ranks()
    os.kill(before[rank].pid, signal.SIGKILL)
    assert spread.outputs.finish_reason(held) == "lost"
    wait_until(lambda: all_exited(before), "every rank has exited", seconds=PATIENCE)
    spread.submit(after, 2, 20, 5, [])
    assert spread.outputs.finish_reason(after) == "length"
    assert [reason for reason, _ in spread.outputs.ends[held]] == ["lost"]


def test_stopping_the_engine_ends_every_rank(spread: RankedEngine) -> None:
    spread.client.wait_ready(PATIENCE)
    ranks = spread.all_ranks()
    spread.client.stop_engine()
    wait_until(lambda: all_exited(ranks), "every rank has exited", seconds=PATIENCE)
