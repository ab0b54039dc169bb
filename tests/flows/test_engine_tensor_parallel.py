"""A model spread over two processes answers as one process does, and lives and dies as one engine."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from testing.waiting import wait_until
from tests.flows.engine_outputs import PATIENCE, Answers
from tests.flows.tiny_model import make_tiny_model
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine_client.engine_client import EngineClient

pytest.importorskip("torch")


class Spread:
    """An engine process of the tiny model with so many ranks, and what it gave."""

    def __init__(self, folder: Path, ranks: int) -> None:
        file = folder.parent / "models.json"
        entry = {"name": "tiny", "url": str(folder), "dtype": "float32", "max_context": 1024, "max_in_flight": 8}
        file.write_text(json.dumps([entry]))
        self.answers = Answers()
        settings = Settings(models_file=file, data_dir=folder.parent)
        self.process = EngineClient(load_catalogue(file).get("tiny"), settings, on_step=self.answers.on_step, ranks=ranks)
        self.process.start()

    def ask(self, id: str, number: int, length: int, tokens: int, stops: list[int]) -> None:
        prompt = [(number * 31 + position * position * 7) % 100 for position in range(length)]
        self.process.submit(GenerationRequest(id, prompt, tokens, stops), timeout=PATIENCE)

    def all_ranks(self) -> list[psutil.Process]:
        assert self.process.pid is not None
        leader = psutil.Process(self.process.pid)
        return [leader, *(child for child in leader.children() if "--rank" in child.cmdline())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("ranks") / "tiny")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Spread]:
    one = Spread(folder, 1)
    yield one
    one.process.close()


@pytest.fixture
def spread(folder: Path) -> Iterator[Spread]:
    two = Spread(folder, 2)
    yield two
    two.process.close()


def mixed(engine: Spread, stops: dict[int, list[int]]) -> dict[int, tuple[list[int], str]]:
    for n in range(24):
        engine.ask(f"{len(stops)} {n}", n, (3, 40, 260, 520)[n % 4], (1, 7, 30, 100)[n // 4 % 4], stops.get(n, []))
    ends = {n: engine.answers.end(f"{len(stops)} {n}") for n in range(24)}
    return {n: (engine.answers.tokens.get(f"{len(stops)} {n}", []), ends[n]) for n in range(24)}


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_two_ranks_answer_as_one_process_with_stops_and_after_cancels(alone: Spread, spread: Spread) -> None:
    free = mixed(alone, {})
    assert mixed(spread, {}) == free
    assert len(spread.all_ranks()) == 2
    for n in range(3):
        spread.ask(f"cancelled {n}", 50 + n, 20, 900, [])
    for n in range(3):
        spread.answers.until("first tokens", lambda id=f"cancelled {n}": bool(spread.answers.tokens.get(id)))
        spread.process.cancel(f"cancelled {n}")
        assert spread.answers.end(f"cancelled {n}") == "cancelled"
    stops = {n: [tokens[len(tokens) // 2]] for n, (tokens, _) in free.items() if n % 3 == 0}
    stopped = mixed(spread, stops)
    assert stopped == mixed(alone, stops)
    assert {stopped[n][1] for n in stops} == {"stop"}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all_of_them_and_its_requests_are_lost_once(spread: Spread, rank: int) -> None:
    spread.ask("held", 1, 20, 1000, [])
    spread.answers.until("first token", lambda: bool(spread.answers.tokens.get("held")))
    before = spread.all_ranks()
    os.kill(before[rank].pid, signal.SIGKILL)
    assert spread.answers.end("held") == "lost"
    wait_until(lambda: gone(before), "all ranks are gone", seconds=PATIENCE)
    spread.ask("after", 2, 20, 5, [])
    assert spread.answers.end("after") == "length"
    assert [reason for reason, _ in spread.answers.ends["held"]] == ["lost"]


def test_closing_leaves_no_rank_behind(spread: Spread) -> None:
    spread.process.wait_ready(PATIENCE)
    ranks = spread.all_ranks()
    spread.process.close()
    wait_until(lambda: gone(ranks), "all ranks are gone", seconds=PATIENCE)
