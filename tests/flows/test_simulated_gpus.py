"""The stack on machines with simulated GPUs: placement, pinning, rejection with a memory breakdown, monitoring."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testing.fault_rig.processes import find_engine
from testing.missing_services import missing_service
from testing.stack import QUICK, Stack
from testing.waiting import wait_until
from tests.flows.test_metrics import value
from tests.flows.test_swap import await_model, gpu, models, set_desired_model
from tests.flows.test_up import refusal
from tests.nvml import SimulatedGpu, SimulatedMachine


@pytest.fixture
def machine(tmp_path: Path) -> SimulatedMachine:
    if not (shutil.which("cc") or shutil.which("gcc")):
        missing_service("there is no C compiler")
    return SimulatedMachine(tmp_path / "nvml", SimulatedGpu(), SimulatedGpu(), SimulatedGpu(free=1000))


@pytest.fixture
def stack(machine: SimulatedMachine, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, environment={**QUICK, **machine.environment})
    yield stack
    stack.kill()


def test_replicas_are_pinned_and_the_remaining_gpu_waits_for_a_model(stack: Stack, machine: SimulatedMachine) -> None:
    models(stack, {"name": "a", "default": True, "gpus": 1, "replicas": 2}, {"name": "b", "gpus": 1}, {"name": "wide", "gpus": 2})
    stack.start()
    assert [(gpu(stack, number)["desired_model"], gpu(stack, number)["devices"]) for number in range(3)] == [
        ("a", ["0"]),
        ("a", ["1"]),
        (None, ["2"]),
    ]
    engine = find_engine(stack.pid("gpu1"))
    assert engine is not None
    environment = psutil.Process(engine.pid).environ()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")
    assert "needs 2 GPUs, and this worker has 1" in gpu(stack)["unloadable_models"]["wide"]
    # A job of a model that no worker has loaded goes to the empty GPU.
    assert stack.ended(stack.generate("hello", model="b")["id"])["attempts"][0]["worker"].startswith("gpu2@")

    machine.set_gpus(
        SimulatedGpu(free=5000, utilisation=97, temperature=71, ecc=2),
        SimulatedGpu(free=14000, milliwatts=0),
        SimulatedGpu(xid=79),
    )
    wait_until(lambda: gpu(stack, 2)["gpus"][0]["xid_errors"] == [79], "the Xid error is seen")
    wait_until(lambda: gpu(stack, 0)["gpus"][0]["memory_alarm"] == "critical", "the alarm is reported")
    sample = gpu(stack, 0)["gpus"][0]
    assert (sample["utilisation"], sample["temperature"], sample["ecc_errors"], sample["power"]) == (0.97, 71, 2, 70.0)
    wait_until(lambda: gpu(stack, 1)["gpus"][0]["memory_alarm"] == "warning", "the warning is reported")
    assert gpu(stack, 1)["gpus"][0]["power"] is None
    assert value(stack, "enginehouse_gpu_xid_errors", gpu="2") == 1
    assert value(stack, "enginehouse_gpu_memory_used_bytes", gpu="0") == (81559 - 5000) * 2**20
    line = "memory of GPU 0: critical (74.8 GiB of 79.6 GiB used)"
    wait_until(lambda: line in stack.log.read_text(), "the alarm is logged")
    assert stack.log.read_text().count("memory of GPU 0: critical") == 1, "logged once per change"


def test_a_model_on_two_gpus_gets_both(stack: Stack) -> None:
    models(stack, {"name": "wide", "default": True, "gpus": 2, "devices": [0, 1]}, {"name": "a"})
    stack.start()
    assert gpu(stack, 0)["devices"] == ["0", "1"]
    engine = find_engine(stack.pid("gpu0"))
    assert engine is not None
    assert psutil.Process(engine.pid).environ()["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert {entry["number"] for entry in stack.client.get("/admin/gpus").json()["data"]} == {0, 2}
    assert "needs 1 GPU, and this worker has 2" in gpu(stack)["unloadable_models"]["a"]


def test_a_model_that_does_not_fit_is_rejected_with_the_breakdown(stack: Stack, machine: SimulatedMachine) -> None:
    large = {"name": "large", "url": "org/large", "engine": "transformers", "dtype": "bfloat16", "parameters": 70_000_000_000}
    stack.environment["HF_HUB_OFFLINE"] = "1"
    models(stack, {"name": "a", "default": True}, large)
    sentence = refusal(stack, "--model", "large")
    assert "large needs 131.4 GiB: weights 130.4 GiB (70,000,000,000 parameters in bfloat16)" in sentence
    assert "GPU 0 (NVIDIA H100 80GB HBM3) has 79.1 GiB free of 79.6 GiB" in sentence
    stack.start()
    answer = stack.client.put("/admin/gpus/0/model", json={"model": "large"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_does_not_fit")
    assert "has 79.6 GiB" in answer.json()["error"]["message"]
    assert stack.post("/generate", {"prompt": "x", "model": "large"}).json()["error"]["code"] == "model_not_served"


def test_loading_waits_for_memory_that_is_not_yet_released(stack: Stack, machine: SimulatedMachine, tmp_path: Path) -> None:
    """The model's headers claim large weights; the test only checks how much memory the worker waits for."""
    from tests.unit.test_placement import weights

    folder = weights(tmp_path / "large", numbers=8 * 2**30)
    large = {"name": "large", "url": str(folder), "engine": "transformers", "gpus": 1}
    models(stack, {"name": "a", "default": True}, large)
    stack.start()
    machine.set_gpus(SimulatedGpu(free=20000), SimulatedGpu(), SimulatedGpu(free=1000))
    set_desired_model(stack, "large")
    reason = wait_until(
        lambda: (gpu(stack)["reason"] or "").startswith("waiting for memory") and gpu(stack)["reason"],
        "the worker waits for memory",
    )
    assert "GPU 0 has 19.5 GiB free of the" in str(reason)
    machine.set_gpus(SimulatedGpu(), SimulatedGpu(), SimulatedGpu(free=1000))
    wait_until(lambda: not (gpu(stack)["reason"] or "").startswith("waiting for memory"), "loading continues")
    set_desired_model(stack, "a")
    await_model(stack, "a")


def test_hidden_gpus_are_not_used(stack: Stack) -> None:
    models(stack, {"name": "a", "default": True, "gpus": 1})
    assert "needs 1 GPU, but this machine has no GPU" in refusal(stack, CUDA_VISIBLE_DEVICES="")
