"""GPU monitor: samples, alarms logged once per change, waits for free and for released memory."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from workers.gpu.assignment import select_gpus
from workers.gpu.hardware.devices import GIB, Gpu, NoGpuReader
from workers.gpu.hardware.gpu_monitor import GpuMonitor

GPU = Gpu(index=0, uuid="GPU-a", name="H100", memory_total=80 * GIB, memory_free=79 * GIB)


class ScriptedReader:
    """Returns one reading after the other; the last one stays."""

    def __init__(self, *readings: Sequence[Gpu], xid_errors: Mapping[int, Sequence[int]] | None = None) -> None:
        self._readings = list(readings)
        self._xid_errors = xid_errors or {}

    def read_gpus(self) -> Sequence[Gpu]:
        return self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]

    def xid_errors(self) -> Mapping[int, Sequence[int]]:
        return self._xid_errors


class LostReader(ScriptedReader):
    def read_gpus(self) -> Sequence[Gpu]:
        raise OSError("GPU 0 does not answer: GPU is lost")


@pytest.fixture(autouse=True)
def enable_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process runs lint-imports, which disables every logger that exists by then."""
    monkeypatch.setattr(logging.getLogger("workers.gpu.hardware.gpu_monitor"), "disabled", False)


class Clock:
    """A clock that sleeping advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def monitor_of(*readings: Sequence[Gpu]) -> GpuMonitor:
    clock = Clock()
    return GpuMonitor(ScriptedReader(*readings), [0], clock=clock, sleep=clock.sleep)


def free(gib: float) -> Sequence[Gpu]:
    return [replace(GPU, memory_free=int(gib * GIB))]


def test_a_sample_has_only_the_workers_gpus_with_their_xid_errors() -> None:
    other = replace(GPU, index=1)
    samples = GpuMonitor(ScriptedReader([GPU, other], xid_errors={1: [79], 0: list(range(20))}), [0]).sample()
    assert [gpu["index"] for gpu in samples] == [0]
    assert samples[0]["xid_errors"] == list(range(10, 20))
    assert samples[0]["memory_used"] == GIB


def test_an_alarm_is_logged_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    monitor = GpuMonitor(ScriptedReader(free(79), free(15), free(15), free(7), free(70)), [0])
    with caplog.at_level(logging.INFO):
        alarms = [monitor.sample()[0]["memory_alarm"] for _ in range(5)]
    assert alarms == [None, "warning", "warning", "critical", None]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR, logging.INFO]


def test_memory_that_an_engine_takes_is_no_alarm() -> None:
    monitor = GpuMonitor(ScriptedReader(free(1), free(2), free(2), free(0.6), free(0.2)), [0])
    monitor.engine_is_loading()
    assert monitor.sample()[0]["memory_alarm"] is None
    monitor.engine_has_loaded()
    assert [monitor.sample()[0]["memory_alarm"] for _ in range(3)] == [None, "warning", "critical"]


def test_an_unreadable_gpu_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    monitor = GpuMonitor(LostReader([]), [0])
    assert monitor.sample() == monitor.sample() == []
    assert [record.message for record in caplog.records] == [
        "GPU 0 does not answer: GPU is lost. If the GPU has fallen off the bus, restart the machine."
    ]


def test_a_machine_without_gpus_does_not_wait() -> None:
    monitor = GpuMonitor(NoGpuReader(), [])
    reports: list[str] = []
    assert monitor.sample() == []
    assert monitor.wait_for_free_memory(GIB, 0.0, reports.append)
    assert not monitor.wait_for_memory_release(0, 0.0), "memory is not reported"
    assert (reports, monitor.visible_devices(""), monitor.visible_devices("1")) == ([], None, "1")


def test_waiting_for_free_memory_reports_what_is_lacking() -> None:
    reports: list[str] = []
    assert monitor_of(free(10), free(10), free(40)).wait_for_free_memory(30 * GIB, 20.0, reports.append)
    assert reports == ["waiting for memory: GPU 0 has 10.0 GiB free of the 30.0 GiB that the model needs"] * 2
    assert not monitor_of(free(10)).wait_for_free_memory(30 * GIB, 0.0, reports.append)


@pytest.mark.parametrize(("free_after", "released"), [(79, True), (78.6, True), (60, False)])
def test_memory_is_released_when_no_more_is_used_than_before(free_after: float, released: bool) -> None:
    assert monitor_of(free(20), free(free_after)).wait_for_memory_release(GIB, 0.5) is released


@pytest.mark.parametrize(
    ("device", "indexes"), [("", [0]), ("1", [1]), ("1,0", [1, 0]), ("GPU-b", [1]), ("GPU-b,0", [1, 0]), ("7", [])]
)
def test_a_worker_has_the_gpus_that_its_device_setting_names(device: str, indexes: list[int]) -> None:
    gpus = [GPU, replace(GPU, index=1, uuid="GPU-b")]
    assert [gpu.index for gpu in select_gpus(device, gpus)] == indexes
