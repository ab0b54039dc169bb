"""Model worker: what it reports while its engine and its tokenizer are loaded, without an engine process."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from shared.settings import Settings
from testing.waiting import wait_until
from workers.gpu.engine_client.engine_client import EngineState
from workers.gpu.hardware.devices import NoGpuReader
from workers.gpu.hardware.gpu_monitor import GpuMonitor
from workers.gpu.model_worker import ModelWorker

ENTRY = ModelEntry(name="m", url="echo:", engine="echo")


class ScriptedEngine:
    """Stands for the engine client; a test sets its state."""

    def __init__(self, entry: ModelEntry, settings: Settings, *, on_state: Callable[[EngineState], None], **options: Any) -> None:
        self.state = EngineState("loading", "not started", 0.0, 0.0)
        self.on_state = on_state
        self.supervisor = SimpleNamespace(max_context=0)
        self.started = self.stopped = False

    def start_engine(self) -> None:
        self.started = True

    def stop_engine(self) -> None:
        if not self.stopped:
            self.set_phase("loading", "reading the weights")  # its last report before it is gone
        self.stopped = True
        self.set_phase("stopped", "the worker stopped it")

    def set_phase(self, phase: Any, message: str = "") -> None:
        self.state = EngineState(phase, message, 0.0, 0.0)
        self.on_state(self.state)


class RecordingRuntime:
    def __init__(self) -> None:
        self.statuses: list[tuple[str, str]] = []

    def update_status(self, *, phase: str, message: str, fraction: float) -> None:
        self.statuses.append((phase, message))


class Rig:
    """A model worker with a scripted engine and a recording runtime."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.engines: list[ScriptedEngine] = []
        self.runtime = RecordingRuntime()
        self.worker = ModelWorker(ENTRY, Settings(data_dir=folder), GpuMonitor(NoGpuReader(), []))

        def make_engine(*arguments: Any, **options: Any) -> ScriptedEngine:
            self.engines.append(ScriptedEngine(*arguments, **options))
            return self.engines[-1]

        monkeypatch.setattr("workers.gpu.model_worker.EngineClient", make_engine)

    def load(self) -> None:
        self.worker.begin_loading(self.runtime)  # type: ignore[arg-type]

    @property
    def phases(self) -> list[str]:
        return [phase for phase, _ in self.runtime.statuses]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Rig:
    return Rig(monkeypatch, tmp_path)


def test_a_tokenizer_that_cannot_be_read_is_reported_after_the_last_report_of_the_engine(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise ModelUnavailable("its tokenizer cannot be read")

    monkeypatch.setattr("workers.gpu.model_worker.TextCodec", fail)
    rig.load()
    wait_until(lambda: "failed" in rig.phases, "the failure is reported")
    assert rig.runtime.statuses[-1] == ("failed", "its tokenizer cannot be read")
    assert rig.engines[0].stopped
    with pytest.raises(ModelUnavailable, match="tokenizer cannot be read"):
        rig.worker.generate(None)  # type: ignore[arg-type]
    rig.worker.unload_model()


def test_a_report_that_comes_late_shows_the_latest_state(rig: Rig) -> None:
    rig.load()
    wait_until(lambda: rig.engines and rig.phases[-1:] == ["loading"], "the worker is loading")
    [engine] = rig.engines
    late = engine.state
    engine.set_phase("ready")
    wait_until(lambda: rig.phases[-1] == "ready", "the worker is ready")
    engine.on_state(late)
    assert rig.phases[-1] == "ready"
    rig.worker.unload_model()


def test_no_engine_is_started_after_the_model_was_unloaded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    preparing, unloaded, finished = threading.Event(), threading.Event(), threading.Event()

    def wait_for_free_memory(*arguments: Any) -> bool:
        preparing.set()
        return unloaded.wait(60)

    monkeypatch.setattr(GpuMonitor, "wait_for_free_memory", wait_for_free_memory)
    load = rig.worker._load

    def load_and_note() -> None:
        load()
        finished.set()

    monkeypatch.setattr(rig.worker, "_load", load_and_note)
    rig.load()
    assert preparing.wait(60)
    rig.worker.unload_model()
    unloaded.set()
    assert finished.wait(60)
    assert not any(engine.started for engine in rig.engines)
