"""Batching with a model of random weights: a batch generates what each request generates alone, or the model is not served."""

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

PREFIX = [number * 37 % VOCABULARY for number in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("steps") / "tiny")


def prompt_of(number: int, length: int) -> list[int]:
    return [(number * 31 + position * position * 7) % VOCABULARY for position in range(length)]


def generate(engine: Any, requests: Sequence[GenerationRequest]) -> dict[str, tuple[list[int], str]]:
    tokens: dict[str, list[int]] = {request.id: [] for request in requests}
    ends: dict[str, str] = {}
    for request in requests:
        engine.add_request(request)
    while not tokens.keys() <= ends.keys():
        step = engine.next_step(PATIENCE)
        assert step is not None, f"no end of {set(tokens) - set(ends)} within {PATIENCE} s"
        for id, new in step.tokens:
            tokens[id] += new
        for id, reason, _ in step.finished:
            ends[id] = reason
    return {id: (tokens[id], ends[id]) for id in tokens}


def test_a_batch_generates_what_each_request_generates_alone(folder: Path) -> None:
    mixed = [
        GenerationRequest(f"r{n}", prompt_of(n, (3, 40, 260, 520)[n % 4]), (1, 7, 30, 300)[n // 4 % 4], []) for n in range(16)
    ]
    shared = [GenerationRequest(f"shared {n}", PREFIX + prompt_of(n, 5 + n), 20, []) for n in range(4)]
    with InProcessEngine(folder, max_in_flight=8) as engine:
        together = generate(engine.engine, [*mixed, *shared])
        for request in (*mixed, *shared):
            alone = generate(engine.engine, [GenerationRequest("alone", request.prompt, request.max_new_tokens, [])])["alone"]
            assert together[request.id] == alone, request.id
            assert together[request.id][1] == "length"
            assert len(together[request.id][0]) == request.max_new_tokens


def test_a_stop_token_ends_only_its_own_request(folder: Path) -> None:
    with InProcessEngine(folder, max_in_flight=4) as engine:
        free, _ = generate(engine.engine, [GenerationRequest("free", prompt_of(1, 20), 12, [])])["free"]
        stop = free[5]
        both = generate(
            engine.engine,
            [GenerationRequest("stops", prompt_of(1, 20), 12, [stop]), GenerationRequest("goes on", prompt_of(1, 20), 12, [])],
        )
        assert both["stops"] == (free[: free.index(stop)], "stop")
        assert both["goes on"] == (free, "length")


def test_only_shareable_pages_stay_in_the_cache(folder: Path) -> None:
    with InProcessEngine(folder, max_in_flight=8) as engine:
        generate(engine.engine, [GenerationRequest(f"r{n}", prompt_of(n, 100), 20, []) for n in range(12)])
        engine.engine.add_request(GenerationRequest("cancelled", prompt_of(99, 30), 900, []))
        engine.engine.abort_request("cancelled")
        generate(engine.engine, [GenerationRequest("after", prompt_of(5, 30), 4, [])])
        load = engine.engine.report_load()
        assert (load.running, load.waiting) == (0, 0)
        cache = engine.engine.parts.scheduler.cache
        assert cache.used_fraction == 0
        assert cache.available == cache.capacity


def test_answers_to_one_prompt_that_come_together_compute_it_once(folder: Path) -> None:
    """They wait for the pages that the first of them writes, also if its prompt takes several steps."""
    with InProcessEngine(folder, max_in_flight=8) as engine:
        size = engine.engine.parts.scheduler.cache.page_size
        for number, length in enumerate((5, 2 * size, 2 * size + 3, 900)):
            prompt, before = prompt_of(60 + number, length), engine.engine.report_load()
            options = {"temperature": 1.0, "top_p": 1.0}
            answers = generate(
                engine.engine, [GenerationRequest(f"n{copy}", prompt, 6, [], seed=copy, **options) for copy in range(8)]
            )
            after = engine.engine.report_load()
            assert after.prompt_tokens - before.prompt_tokens == 8 * length
            # The last token is computed for each of them, with the page that holds it.
            assert after.cached_tokens - before.cached_tokens == 7 * ((length - 1) // size * size)
            assert len({tuple(tokens) for tokens, _ in answers.values()}) > 1


def test_the_end_of_a_request_says_how_much_of_its_prompt_was_cached(folder: Path) -> None:
    with InProcessEngine(folder) as engine:
        size = engine.engine.parts.scheduler.cache.page_size
        prompt = prompt_of(71, 2 * size + 3)
        assert [engine.generate(prompt).cached_tokens for _ in range(2)] == [0, 2 * size]
        assert engine.engine.parts.scheduler.cached_of_finished == {}


WINDOWS = {"model_type": "mistral", "sliding_window": 24}
SOFTCAPS = {
    "model_type": "gemma2",
    "sliding_window": 24,
    "attn_logit_softcapping": 5.0,
    "query_pre_attn_scalar": 8,
    "head_dim": 8,
}
NORMS = {"model_type": "qwen3", "head_dim": 8}


@pytest.mark.parametrize("architecture", [WINDOWS, SOFTCAPS, NORMS], ids=lambda architecture: architecture["model_type"])
def test_other_attention_passes_the_self_test_and_batches_alike(tmp_path: Path, architecture: dict[str, Any]) -> None:
    other = make_tiny_model(tmp_path / "other", **architecture)
    requests = [GenerationRequest(f"r{n}", prompt_of(n, (3, 40, 90, 520)[n]), 30, []) for n in range(4)]
    with InProcessEngine(other, max_in_flight=4) as engine:
        together = generate(engine.engine, requests)
        for request in requests:
            assert generate(engine.engine, [request])[request.id] == together[request.id]


def test_a_model_that_fails_the_self_test_is_not_served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.gpu.engine.paged_attention import SdpaAttention

    original = SdpaAttention.attend

    def faulty(*arguments: Any, **options: Any) -> Any:
        """A kernel that reads the pages of another request."""
        output, weights = original(*arguments, **options)
        return output.roll(1, dims=1), weights

    monkeypatch.setattr(SdpaAttention, "attend", faulty)
    with pytest.raises(ModelUnavailable, match=r"self-test.*standard deviations"):
        InProcessEngine(folder, max_in_flight=4).__enter__()


def test_the_engine_reports_its_attention_backend(folder: Path) -> None:
    with InProcessEngine(folder) as engine:
        assert engine.engine.attention_backend == "sdpa"
