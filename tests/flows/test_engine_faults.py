"""Faults of an engine with a real model: out of memory, NaN logits, a step that never ends."""

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from testing.waiting import wait_until
from tests.flows.engine_outputs import PATIENCE, OutputRecorder
from tests.flows.tiny_model import POISON, VOCABULARY, make_tiny_model
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine_client.engine_client import EngineClient, EngineState

pytest.importorskip("torch")

MIB = 1024 * 1024


class RecordedEngine:
    """An engine process, its output, and each state that it reported."""

    def __init__(
        self,
        folder: Path,
        *,
        in_flight: int = 8,
        engine_hang_seconds: float = 60.0,
        quiet_seconds: float = 600.0,
        trust: bool = False,
    ) -> None:
        entry = {"name": "tiny", "url": str(folder), "dtype": "float32", "max_context": 1024, "max_in_flight": in_flight}
        file = folder.parent / "models.json"
        file.write_text(json.dumps([{**entry, "trust_remote_code": trust}]))
        self.outputs = OutputRecorder()
        self.states: list[EngineState] = []
        self.on_state: Callable[[EngineState], None] = self.states.append
        settings = Settings(models_file=file, data_dir=folder.parent, engine_hang_seconds=engine_hang_seconds)
        self.client = EngineClient(
            load_catalogue(file).get_model("tiny"),
            settings,
            on_step=self.outputs.on_step,
            on_state=lambda state: self.on_state(state),
            quiet_seconds=quiet_seconds,
        )

    def submit(self, id: str, prompt: list[int], tokens: int = 8, **sampling: Any) -> None:
        self.client.submit_request(GenerationRequest(id, prompt, tokens, [], **sampling), timeout=PATIENCE)

    def generated(self, id: str) -> list[int]:
        assert self.outputs.finish_reason(id) == "length", self.outputs.ends[id]
        return self.outputs.tokens[id]


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[Callable[..., RecordedEngine]]:
    started: list[RecordedEngine] = []

    def start(folder: Path, **options: object) -> RecordedEngine:
        engine = RecordedEngine(folder, **options)  # type: ignore[arg-type]
        started.append(engine)
        engine.client.start_engine()
        return engine

    yield start
    for engine in started:
        engine.client.stop_engine()


def limit_memory(engine: RecordedEngine, spare: int) -> None:
    """Limit each process of an engine to ``spare`` bytes more than it has when its model and its KV cache are in memory."""

    def on_state(state: EngineState) -> None:
        engine.states.append(state)
        pid = engine.client.pid
        if pid is not None and state.phase == "warming" and state.message.startswith("generating from a prompt"):
            size = int(Path(f"/proc/{pid}/status").read_text().split("VmSize:")[1].split()[0]) * 1024
            resource.prlimit(pid, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))

    engine.on_state = on_state


@pytest.fixture
def one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one malloc arena per thread, the size of a process would be random."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")


def prompt_of(number: int, length: int) -> list[int]:
    return [(number * 31 + position * 7) % 100 + 10 for position in range(length)]


@pytest.mark.slow_fault
@pytest.mark.usefixtures("one_arena")
def test_out_of_memory_runs_fewer_requests_at_once_and_continues_each(
    tmp_path: Path, start_engine: Callable[..., RecordedEngine]
) -> None:
    # Its steps take the memory: 256 KiB for each token, several times.
    engine = start_engine(make_tiny_model(tmp_path / "wide", intermediate_size=65536, hidden_size=16))
    limit_memory(engine, 250 * MIB)
    engine.client.wait_ready(PATIENCE)
    first = engine.client.pid
    requests = {"long": (prompt_of(0, 5), 300), **{f"r{number}": (prompt_of(number, 70), 8) for number in range(1, 8)}}
    for id, (prompt, tokens) in requests.items():
        engine.submit(id, prompt, tokens)
        engine.outputs.wait_for("first token of the long request", lambda: bool(engine.outputs.tokens.get("long")))
    together = {id: engine.generated(id) for id in requests}
    assert engine.client.pid != first
    assert engine.client.limit < 8
    assert any("out of memory with 8 requests in flight" in state.message for state in engine.states)
    assert engine.client.state.phase == "ready"
    assert f"{engine.client.limit} of 8 requests at once" in engine.client.state.message
    for id, (prompt, tokens) in requests.items():
        engine.submit(f"{id} again", prompt, tokens)
        assert engine.generated(f"{id} again") == together[id]
    assert all(len(ends) == 1 for ends in engine.outputs.ends.values())


@pytest.mark.usefixtures("one_arena")
@pytest.mark.slow_fault
def test_only_a_request_that_does_not_fit_alone_ends_out_of_memory(
    tmp_path: Path, start_engine: Callable[..., RecordedEngine]
) -> None:
    # Its context takes the memory: 128 KiB for each token that attention reads, several times.
    heads = {"num_attention_heads": 64, "num_key_value_heads": 64, "head_dim": 256}
    folder = make_tiny_model(tmp_path / "deep", hidden_size=64, num_hidden_layers=1, **heads)
    engine = start_engine(folder, in_flight=2, quiet_seconds=0.5)
    limit_memory(engine, 80 * MIB)
    engine.submit("small", prompt_of(1, 5), tokens=3)
    engine.submit("huge", prompt_of(2, 900), tokens=3)
    engine.submit("other", prompt_of(3, 5), tokens=3)
    assert engine.outputs.finish_reason("huge") == "out_of_memory"
    assert "allocate" in engine.outputs.ends["huge"][0][1]
    assert len(engine.generated("small")) == len(engine.generated("other")) == 3
    assert any("1 of 2 requests at once" in state.message for state in engine.states)
    # Idle, and after the quiet time, it tries two at once again.
    wait_until(lambda: engine.client.limit == 2 and engine.client.state.phase == "ready", "it runs two at once", seconds=PATIENCE)
    assert engine.client.state.message == ""
    engine.submit("later", prompt_of(1, 5), tokens=3)
    assert engine.generated("later") == engine.generated("small")


def test_nan_logits_end_only_their_request(tmp_path: Path, start_engine: Callable[..., RecordedEngine]) -> None:
    engine = start_engine(make_tiny_model(tmp_path / "poisoned", poisoned=True))
    healthy = [prompt_of(number, 4) for number in range(4)]
    for number, prompt in enumerate(healthy):
        engine.submit(f"before {number}", prompt, tokens=40)
    before = [engine.generated(f"before {number}") for number in range(4)]
    pid = engine.client.pid
    variants: list[dict[str, Any]] = [
        {},
        *({"temperature": 1.0, "seed": 1, **variant} for variant in ({}, {"top_p": 0.9}, {"top_k": 5})),
    ]
    for number, prompt in enumerate(healthy):
        engine.submit(f"beside {number}", prompt, tokens=40)
        engine.submit(f"poisoned {number}", [3, POISON, 5 + number], tokens=40, **variants[number])
    for number in range(4):
        assert engine.outputs.finish_reason(f"poisoned {number}") == "nan_logits"
        assert "NaN" in engine.outputs.ends[f"poisoned {number}"][0][1]
        assert f"poisoned {number}" not in engine.outputs.tokens
    assert [engine.generated(f"beside {number}") for number in range(4)] == before
    assert engine.client.pid == pid
    assert [state.phase for state in engine.states].count("ready") == 1


def test_pages_with_nan_are_not_shared_with_the_same_prefix(tmp_path: Path) -> None:
    # In this process, because the fault has to pass: a transient bit flip must not poison a prefix for good.
    import torch

    from tests.flows.in_process_engine import InProcessEngine

    with InProcessEngine(make_tiny_model(tmp_path / "poisoned", poisoned=True)) as engine:
        prompt = [POISON, *prompt_of(1, 600)]
        assert engine.generate(prompt).reason == "nan_logits"
        embedding = engine.model.get_input_embeddings().weight.data
        embedding[POISON] = torch.zeros_like(embedding[POISON])
        assert engine.generate(prompt).reason == "length"


def test_pages_are_shared_only_with_the_same_salt(tmp_path: Path) -> None:
    from tests.flows.in_process_engine import InProcessEngine

    with InProcessEngine(make_tiny_model(tmp_path / "tiny")) as engine:
        cache = engine.engine.parts.scheduler.cache

        def pages_after(salt: int) -> int:
            assert engine.generate(prompt_of(1, 600), tokens=1, cache_salt=salt).reason == "length"
            return cache.shareable

        first, again, other = pages_after(7), pages_after(7), pages_after(8)
        assert first > 0
        assert again == first, "the same pages were found again"
        assert other == 2 * first, "another owner's request found none of them"


def test_token_ids_outside_the_vocabulary_fail_their_request_before_any_step(tmp_path: Path) -> None:
    from tests.flows.in_process_engine import InProcessEngine

    with InProcessEngine(make_tiny_model(tmp_path / "tiny")) as engine:
        for prompt in ([5, VOCABULARY], [5, -1]):
            ended = engine.generate(prompt)
            assert (ended.reason, str(VOCABULARY) in ended.detail) == ("failed", True)
        assert engine.generate([5, VOCABULARY - 1]).reason == "length"


BLOCKING = """
import threading
from transformers import LlamaForCausalLM

class BlockingForCausalLM(LlamaForCausalLM):
    def forward(self, input_ids=None, **rest):
        ids = input_ids.flatten()
        # Three in a row, which only a prompt has: warm-up samples tokens, and may sample any one of them.
        if ((ids[:-2] == 3) & (ids[1:-1] == 7) & (ids[2:] == 5)).any():
            threading.Event().wait()
        return super().forward(input_ids=input_ids, **rest)
"""


@pytest.mark.slow_fault
def test_a_step_that_never_ends_is_reported_and_then_killed(
    tmp_path: Path, start_engine: Callable[..., RecordedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = make_tiny_model(tmp_path / "blocking")
    (folder / "blocking.py").write_text(BLOCKING)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "blocking.BlockingForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    engine = start_engine(folder, engine_hang_seconds=10.0, trust=True)
    engine.submit("fine", [3, 4, 5])
    assert len(engine.generated("fine")) == 8
    first = engine.client.pid
    engine.submit("blocks", [3, 7, 5])
    assert engine.outputs.finish_reason("blocks") == "lost"
    assert "without completing a step" in engine.outputs.ends["blocks"][0][1]
    [stalled] = {state.message.split(" for ")[0] for state in engine.states if state.phase == "stalled"}
    assert stalled == "it held requests without completing a step"
    engine.submit("after", [3, 4, 5])
    assert engine.generated("after") == engine.generated("fine")
    assert engine.client.pid not in (None, first)
