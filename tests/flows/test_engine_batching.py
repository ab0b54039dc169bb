"""The engine's own steps with a model of random weights: batched answers are those of one request alone, and a model that
answers a batch otherwise is not served."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from tests.flows.engine_outputs import PATIENCE
from tests.flows.in_process_engine import InProcessEngine
from tests.flows.tiny_model import VOCABULARY, make_tiny_model
from workers.gpu.engine.messages import GenerationRequest

torch = pytest.importorskip("torch")

HEAD = [number * 37 % VOCABULARY for number in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("steps") / "tiny")


def prompt_of(number: int, length: int) -> list[int]:
    return [(number * 31 + position * position * 7) % VOCABULARY for position in range(length)]


def answers_of(engine: Any, requests: Sequence[GenerationRequest]) -> dict[str, tuple[list[int], str]]:
    tokens: dict[str, list[int]] = {request.id: [] for request in requests}
    ends: dict[str, str] = {}
    for request in requests:
        engine.submit(request)
    while not tokens.keys() <= ends.keys():
        step = engine.next_step(PATIENCE)
        assert step is not None, f"no end of {set(tokens) - set(ends)} within {PATIENCE} s"
        for id, new in step.tokens:
            tokens[id] += new
        for id, reason, _ in step.finished:
            ends[id] = reason
    return {id: (tokens[id], ends[id]) for id in tokens}


def test_answers_of_a_batch_are_those_of_each_request_alone(folder: Path) -> None:
    mixed = [
        GenerationRequest(f"r{n}", prompt_of(n, (3, 40, 260, 520)[n % 4]), (1, 7, 30, 300)[n // 4 % 4], []) for n in range(16)
    ]
    alike = [GenerationRequest(f"alike {n}", HEAD + prompt_of(n, 5 + n), 20, []) for n in range(4)]
    with InProcessEngine(folder, max_in_flight=8) as here:
        together = answers_of(here.engine, [*mixed, *alike])
        for request in (*mixed, *alike):
            alone = answers_of(here.engine, [GenerationRequest("alone", request.prompt, request.max_new_tokens, [])])["alone"]
            assert together[request.id] == alone, request.id
            assert together[request.id][1] == "length"
            assert len(together[request.id][0]) == request.max_new_tokens


def test_a_stop_ends_its_own_request_only(folder: Path) -> None:
    with InProcessEngine(folder, max_in_flight=4) as here:
        free, _ = answers_of(here.engine, [GenerationRequest("free", prompt_of(1, 20), 12, [])])["free"]
        stop = free[5]
        both = answers_of(
            here.engine,
            [GenerationRequest("stops", prompt_of(1, 20), 12, [stop]), GenerationRequest("goes on", prompt_of(1, 20), 12, [])],
        )
        assert both["stops"] == (free[: free.index(stop)], "stop")
        assert both["goes on"] == (free, "length")


def test_nothing_is_left_in_the_cache_but_pages_to_share(folder: Path) -> None:
    with InProcessEngine(folder, max_in_flight=8) as here:
        answers_of(here.engine, [GenerationRequest(f"r{n}", prompt_of(n, 100), 20, []) for n in range(12)])
        here.engine.submit(GenerationRequest("cancelled", prompt_of(99, 30), 900, []))
        here.engine.cancel("cancelled")
        answers_of(here.engine, [GenerationRequest("after", prompt_of(5, 30), 4, [])])
        stats = here.engine.stats()
        assert (stats.running, stats.waiting) == (0, 0)
        cache = here.engine._manager.batch_processor.cache
        cache.evict_cached_blocks()
        assert cache.compute_free_capacity() == 1.0


def test_requests_whose_pages_are_taken_away_are_counted_and_answer_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.gpu.engine import batch_config, transformers_engine

    requests = [GenerationRequest(f"r{n}", prompt_of(n, 400), 500, []) for n in range(4)]
    with InProcessEngine(folder, max_in_flight=4) as here:
        right = {request.id: answers_of(here.engine, [request])[request.id] for request in requests}
        assert answers_of(here.engine, requests) == right
        assert here.engine.stats().evictions == 0
    # Eight pages for requests that take four each, in the manager's own steps, and a feed that believes in more room.
    monkeypatch.setattr(batch_config, "CPU_TOKENS_PER_REQUEST", 256)
    monkeypatch.setattr(transformers_engine, "enable_block_tables", lambda manager, *_: _no_tables(manager))
    with InProcessEngine(folder, max_in_flight=4) as here:
        monkeypatch.setattr(here.engine._feed, "_room", 1000)
        assert answers_of(here.engine, requests) == right
        assert here.engine.stats().evictions > 0


def _no_tables(manager: Any) -> None:
    manager.continuous_batching_config.max_blocks_per_request = 0


def test_a_model_whose_batch_answers_otherwise_is_not_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.gpu.engine import attention

    right = attention._attend_by_pages

    def wrong(*arguments: Any) -> Any:
        """A kernel that reads the pages of a neighbour."""
        return right(*arguments).roll(1, dims=1)

    monkeypatch.setattr(attention, "_attend_by_pages", wrong)
    with pytest.raises(ModelUnavailable, match=r"self-test.*standard deviations"):
        InProcessEngine(folder, max_in_flight=4).__enter__()


def test_it_says_by_which_kernel_it_attends(folder: Path) -> None:
    with InProcessEngine(folder) as here:
        assert here.engine.attention == "sdpa"
