"""Job errors when a model produces NaN logits, or has too little memory."""

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testing.fault_rig.processes import has_word
from testing.stack import QUICK, Stack, models
from tests.flows.tiny_model import POISON, make_tiny_model, tiny_entry


@pytest.fixture(scope="module")
def poisoned_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("poisoned")
    # Its context takes the memory: 128 KiB for each token that attention reads, several times.
    heads = {"num_attention_heads": 64, "num_key_value_heads": 64, "head_dim": 256}
    model = make_tiny_model(folder / "model", poisoned=True, hidden_size=64, num_hidden_layers=1, **heads)
    stack = Stack(folder, environment=QUICK)
    entries = models(0.0)
    entries[0] = tiny_entry(model, max_in_flight=1)
    stack.models.write_text(json.dumps(entries))
    try:
        yield stack.start()
    finally:
        stack.kill()


def words(count: int) -> str:
    return " ".join(f"w{10 + number % 100}" for number in range(count))


def engine_of(stack: Stack) -> psutil.Process:
    assert stack.process is not None
    family = psutil.Process(stack.process.pid).children(recursive=True)
    [engine] = [process for process in family if has_word(process, "workers.gpu.engine")]
    return engine


def test_a_job_with_nan_logits_fails_at_once_with_its_code(poisoned_stack: Stack) -> None:
    engine = engine_of(poisoned_stack).pid
    job = poisoned_stack.ended(poisoned_stack.generate(f"w3 w{POISON} w5", max_tokens=4)["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "nan_logits")
    assert "dtype" in job["error"]["message"]
    assert len(job["attempts"]) == 1
    assert poisoned_stack.ended(poisoned_stack.generate("w3 w4 w5", max_tokens=4)["id"])["status"] == "completed"
    assert engine_of(poisoned_stack).pid == engine


@pytest.mark.slow_fault
def test_a_job_that_does_not_fit_in_memory_fails_with_its_lengths(poisoned_stack: Stack) -> None:
    engine = engine_of(poisoned_stack)
    status = Path(f"/proc/{engine.pid}/status").read_text()
    size = int(status.split("VmSize:")[1].split()[0]) * 1024
    resource.prlimit(engine.pid, resource.RLIMIT_AS, (size + (40 << 20), resource.RLIM_INFINITY))
    job = poisoned_stack.ended(poisoned_stack.generate(words(900), max_tokens=4)["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "out_of_memory")
    assert (job["error"]["prompt_tokens"], job["error"]["max_tokens"]) == (900, 4)
    assert len(job["attempts"]) == 1
    assert poisoned_stack.ended(poisoned_stack.generate(words(900), max_tokens=4)["id"])["status"] == "completed"
    assert engine_of(poisoned_stack).pid != engine.pid
