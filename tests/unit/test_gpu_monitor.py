"""The health of GPUs is told, its alarms once; memory is waited for before a model is loaded and after it has gone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from workers.gpu.assignment import select_gpus
from workers.gpu.engine.messages import Heartbeat, decode, encode
from workers.gpu.engine_client.throughput_meter import ThroughputMeter
from workers.gpu.hardware.devices import GIB, Gpu, NoGpuReader
from workers.gpu.hardware.gpu_monitor import GpuMonitor

GPU = Gpu(index=0, uuid="GPU-a", name="H100", memory_total=80 * GIB, memory_free=79 * GIB)


class Machine:
    """GPUs as data; the reading after the last one stays."""

    def __init__(self, *readings: Sequence[Gpu], faults: Mapping[int, Sequence[int]] | None = None) -> None:
        self._readings = list(readings)
        self._faults = faults or {}

    def read(self) -> Sequence[Gpu]:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]

    def faults(self) -> Mapping[int, Sequence[int]]:
        return self._faults


class Gone(Machine):
    def read(self) -> Sequence[Gpu]:
        raise OSError("GPU 0 does not answer: GPU is lost")


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """lint-imports, run by another test of this process, disables every logger that exists by then."""
    monkeypatch.setattr(logging.getLogger("workers.gpu.hardware.gpu_monitor"), "disabled", False)


def free(gib: float) -> Sequence[Gpu]:
    return [replace(GPU, memory_free=int(gib * GIB))]


def test_only_the_workers_own_gpus_are_told_with_their_faults() -> None:
    other = replace(GPU, index=1)
    told = GpuMonitor(Machine([GPU, other], faults={1: [79], 0: list(range(20))}), [0]).look()
    assert [gpu["index"] for gpu in told] == [0]
    assert told[0]["xid_errors"] == list(range(10, 20))
    assert told[0]["memory_used"] == GIB


def test_an_alarm_is_logged_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    health = GpuMonitor(Machine(free(79), free(15), free(15), free(7), free(70)), [0])
    with caplog.at_level(logging.INFO):
        alarms = [health.look()[0]["memory_alarm"] for _ in range(5)]
    assert alarms == [None, "warning", "warning", "critical", None]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR, logging.INFO]


def test_a_gpu_that_does_not_answer_is_said_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    health = GpuMonitor(Gone([]), [0])
    assert health.look() == health.look() == []
    assert [record.message for record in caplog.records] == [
        "GPU 0 does not answer: GPU is lost: a GPU that has fallen off its bus needs a restart of the machine"
    ]


def test_a_machine_without_gpus_waits_for_nothing() -> None:
    health = GpuMonitor(NoGpuReader(), [])
    said: list[str] = []
    assert health.look() == []
    assert health.wait_for_free_memory(GIB, 0.0, said.append)
    assert not health.wait_for_memory_release(0, 0.0), "nothing is known of it"
    assert (said, health.device(""), health.device("1")) == ([], None, "1")


def test_room_is_waited_for_and_what_is_lacking_is_said() -> None:
    said: list[str] = []
    assert GpuMonitor(Machine(free(10), free(10), free(40)), [0]).wait_for_free_memory(30 * GIB, 20.0, said.append)
    assert said == ["waiting for memory: GPU 0 has 10.0 GiB free of the 30.0 GiB that it needs"] * 2
    assert not GpuMonitor(Machine(free(10)), [0]).wait_for_free_memory(30 * GIB, 0.0, said.append)


@pytest.mark.parametrize(("left", "came"), [(79, True), (78.6, True), (60, False)])
def test_memory_has_come_back_when_no_more_is_used_than_before(left: float, came: bool) -> None:
    assert GpuMonitor(Machine(free(20), free(left)), [0]).wait_for_memory_release(GIB, 0.5) is came


@pytest.mark.parametrize(
    ("device", "indexes"), [("", [0]), ("1", [1]), ("1,0", [1, 0]), ("GPU-b", [1]), ("GPU-b,0", [1, 0]), ("7", [])]
)
def test_a_worker_has_the_gpus_that_its_device_names(device: str, indexes: list[int]) -> None:
    gpus = [GPU, replace(GPU, index=1, uuid="GPU-b")]
    assert [gpu.index for gpu in select_gpus(device, gpus)] == indexes


def test_a_beat_crosses_with_its_evictions() -> None:
    beat = Heartbeat(steps=3, tokens=5, running=2, waiting=1, cache_use=0.5, evictions=4)
    assert decode(encode(beat)) == beat


def test_rates_are_between_beats_and_begin_anew_with_a_new_engine() -> None:
    def beat(steps: int, tokens: int) -> Heartbeat:
        return Heartbeat(steps, tokens, 0, 0, 0.0)

    rates = ThroughputMeter()
    assert rates.of(beat(10, 100), 100.0)["tokens_per_second"] == 0.0
    assert rates.of(beat(30, 500), 102.0) == {"tokens_per_second": 200.0, "steps_per_second": 10.0}
    assert rates.of(beat(31, 510), 102.5)["tokens_per_second"] == 200.0, "too soon to tell"
    assert rates.of(beat(4, 40), 104.0) == {"tokens_per_second": 20.0, "steps_per_second": 2.0}
