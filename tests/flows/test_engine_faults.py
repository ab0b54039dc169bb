"""What befalls an engine with a real model: want of memory, scores that are no numbers, a step that never ends."""

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from testing.waiting import wait_until
from tests.flows.engine_outputs import PATIENCE, Answers
from tests.flows.tiny_model import POISON, VOCABULARY, make_tiny_model
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine_client.engine_client import EngineClient, EngineState

pytest.importorskip("torch")

MIB = 1024 * 1024


class Watched:
    """An engine process, what it gave, and each state that it told of."""

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
        self.answers = Answers()
        self.states: list[EngineState] = []
        self.on_state: Callable[[EngineState], None] = self.states.append
        settings = Settings(models_file=file, data_dir=folder.parent, engine_hang_seconds=engine_hang_seconds)
        self.process = EngineClient(
            load_catalogue(file).get("tiny"),
            settings,
            on_step=self.answers.on_step,
            on_state=lambda state: self.on_state(state),
            quiet_seconds=quiet_seconds,
        )

    def ask(self, id: str, prompt: list[int], tokens: int = 8, **sampling: Any) -> None:
        self.process.submit(GenerationRequest(id, prompt, tokens, [], **sampling), timeout=PATIENCE)

    def answer(self, id: str) -> list[int]:
        assert self.answers.end(id) == "length", self.answers.ends[id]
        return self.answers.tokens[id]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def start(folder: Path, **options: object) -> Watched:
        one = Watched(folder, **options)  # type: ignore[arg-type]
        made.append(one)
        one.process.start()
        return one

    yield start
    for one in made:
        one.process.close()


def limit_memory(engine: Watched, spare: int) -> None:
    """Let each process of an engine take ``spare`` bytes more than it has when its model and its cache are in memory."""

    def on_state(state: EngineState) -> None:
        engine.states.append(state)
        pid = engine.process.pid
        if pid is not None and state.phase == "warming" and state.message.startswith("a prompt of"):
            size = int(Path(f"/proc/{pid}/status").read_text().split("VmSize:")[1].split()[0]) * 1024
            resource.prlimit(pid, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))

    engine.on_state = on_state


@pytest.fixture
def one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arena for each thread would make the size of a process a matter of chance."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")


def prompt_of(number: int, length: int) -> list[int]:
    return [(number * 31 + position * 7) % 100 + 10 for position in range(length)]


@pytest.mark.usefixtures("one_arena")
def test_when_memory_runs_out_fewer_run_at_once_and_every_answer_goes_on_where_it_was(
    tmp_path: Path, watched: Callable[..., Watched]
) -> None:
    # Its memory goes into its steps: 256 KiB for each token, a few times over.
    engine = watched(make_tiny_model(tmp_path / "wide", intermediate_size=65536, hidden_size=16))
    limit_memory(engine, 250 * MIB)
    engine.process.wait_ready(PATIENCE)
    first = engine.process.pid
    asked = {"long": (prompt_of(0, 5), 300), **{f"r{number}": (prompt_of(number, 70), 8) for number in range(1, 8)}}
    for id, (prompt, tokens) in asked.items():
        engine.ask(id, prompt, tokens)
        engine.answers.until("first token of the long answer", lambda: bool(engine.answers.tokens.get("long")))
    together = {id: engine.answer(id) for id in asked}
    assert engine.process.pid != first
    assert engine.process.limit < 8
    assert any("out of memory with 8 requests in flight" in state.message for state in engine.states)
    assert engine.process.state.phase == "ready"
    assert f"{engine.process.limit} of 8 requests at once" in engine.process.state.message
    for id, (prompt, tokens) in asked.items():
        engine.ask(f"{id} again", prompt, tokens)
        assert engine.answer(f"{id} again") == together[id]
    assert all(len(ends) == 1 for ends in engine.answers.ends.values())


@pytest.mark.usefixtures("one_arena")
def test_only_a_request_that_cannot_fit_alone_ends_for_want_of_memory(tmp_path: Path, watched: Callable[..., Watched]) -> None:
    # Its memory goes into the context: 128 KiB for each token that is looked back at, a few times over.
    heads = {"num_attention_heads": 64, "num_key_value_heads": 64, "head_dim": 256}
    folder = make_tiny_model(tmp_path / "deep", hidden_size=64, num_hidden_layers=1, **heads)
    engine = watched(folder, in_flight=2, quiet_seconds=0.5)
    limit_memory(engine, 80 * MIB)
    engine.ask("small", prompt_of(1, 5), tokens=3)
    engine.ask("huge", prompt_of(2, 900), tokens=3)
    engine.ask("other", prompt_of(3, 5), tokens=3)
    assert engine.answers.end("huge") == "out_of_memory"
    assert "allocate" in engine.answers.ends["huge"][0][1]
    assert len(engine.answer("small")) == len(engine.answer("other")) == 3
    assert any("1 of 2 requests at once" in state.message for state in engine.states)
    # With nothing to do and memory enough for the quiet time, it tries two at once again.
    wait_until(lambda: engine.process.limit == 2 and engine.process.state.phase == "ready", "it has grown", seconds=PATIENCE)
    assert engine.process.state.message == ""
    engine.ask("later", prompt_of(1, 5), tokens=3)
    assert engine.answer("later") == engine.answer("small")


def test_scores_that_are_no_numbers_end_their_request_alone(tmp_path: Path, watched: Callable[..., Watched]) -> None:
    engine = watched(make_tiny_model(tmp_path / "poisoned", poisoned=True))
    healthy = [prompt_of(number, 4) for number in range(4)]
    for number, prompt in enumerate(healthy):
        engine.ask(f"before {number}", prompt, tokens=40)
    before = [engine.answer(f"before {number}") for number in range(4)]
    pid = engine.process.pid
    ways: list[dict[str, Any]] = [{}, *({"temperature": 1.0, "seed": 1, **way} for way in ({}, {"top_p": 0.9}, {"top_k": 5}))]
    for number, prompt in enumerate(healthy):
        engine.ask(f"beside {number}", prompt, tokens=40)
        engine.ask(f"poisoned {number}", [3, POISON, 5 + number], tokens=40, **ways[number])
    for number in range(4):
        assert engine.answers.end(f"poisoned {number}") == "nan_logits"
        assert "NaN" in engine.answers.ends[f"poisoned {number}"][0][1]
        assert f"poisoned {number}" not in engine.answers.tokens
    assert [engine.answer(f"beside {number}") for number in range(4)] == before
    assert engine.process.pid == pid
    assert [state.phase for state in engine.states].count("ready") == 1


def test_pages_with_nan_are_not_kept_for_prompts_that_begin_alike(tmp_path: Path) -> None:
    # In this process, as the fault has to pass: a bit that flips for a moment must not spoil a prefix for good.
    import torch

    from tests.flows.in_process_engine import InProcessEngine

    with InProcessEngine(make_tiny_model(tmp_path / "poisoned", poisoned=True)) as engine:
        prompt = [POISON, *prompt_of(1, 600)]
        assert engine.ask(prompt).reason == "nan_logits"
        embedding = engine.model.get_input_embeddings().weight.data
        embedding[POISON] = torch.zeros_like(embedding[POISON])
        assert engine.ask(prompt).reason == "length"


def test_tokens_that_the_model_does_not_know_fail_their_request_and_reach_no_step(tmp_path: Path) -> None:
    from tests.flows.in_process_engine import InProcessEngine

    with InProcessEngine(make_tiny_model(tmp_path / "tiny")) as engine:
        for prompt in ([5, VOCABULARY], [5, -1]):
            ended = engine.ask(prompt)
            assert (ended.reason, str(VOCABULARY) in ended.detail) == ("failed", True)
        assert engine.ask([5, VOCABULARY - 1]).reason == "length"


BLOCKING = """
import threading
from transformers import LlamaForCausalLM

class BlockingForCausalLM(LlamaForCausalLM):
    def forward(self, input_ids=None, **rest):
        ids = input_ids.flatten()
        # Three in a row, which only a prompt brings: warming up draws tokens, any one of them now and then.
        if ((ids[:-2] == 3) & (ids[1:-1] == 7) & (ids[2:] == 5)).any():
            threading.Event().wait()
        return super().forward(input_ids=input_ids, **rest)
"""


def test_a_step_that_never_ends_is_told_and_then_ended(
    tmp_path: Path, watched: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = make_tiny_model(tmp_path / "blocking")
    (folder / "blocking.py").write_text(BLOCKING)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "blocking.BlockingForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))
    engine = watched(folder, engine_hang_seconds=4.0, trust=True)
    engine.ask("fine", [3, 4, 5])
    assert len(engine.answer("fine")) == 8
    first = engine.process.pid
    engine.ask("blocks", [3, 7, 5])
    assert engine.answers.end("blocks") == "lost"
    assert "no step" in engine.answers.ends["blocks"][0][1]
    [stalled] = {state.message.split(" for ")[0] for state in engine.states if state.phase == "stalled"}
    assert stalled == "it held requests and made no step"
    engine.ask("after", [3, 4, 5])
    assert engine.answer("after") == engine.answer("fine")
    assert engine.process.pid not in (None, first)
