"""One model in the hands of a worker: it prepares and loads the model, tells how far that is, and runs generations.

Everything that is text happens here, beside the engine process, which sees token ids only.
"""

import logging
import threading
import time
from typing import Any

from shared.errors import EnginehouseError, ModelUnavailable
from shared.models.catalogue import ECHO, ModelEntry
from shared.redis_connection import connect
from shared.sessions.store import Sessions
from shared.settings import Settings
from workers.gpu.engine.messages import StepOutput
from workers.gpu.engine_client.engine_client import EngineClient, EngineState
from workers.gpu.engine_client.throughput_meter import ThroughputMeter
from workers.gpu.generation import GenerationHandler
from workers.gpu.hardware.devices import format_gib
from workers.gpu.hardware.gpu_monitor import GpuMonitor
from workers.gpu.hardware.memory_estimate import estimate_memory
from workers.gpu.tokenization import TextCodec
from workers.gpu.weights import prepare
from workers.runtime.attempt import Attempt, Result
from workers.runtime.worker_runtime import WorkerRuntime

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0
# How long to wait for memory of a GPU: before a model is loaded, and after its engine has ended.
ROOM_SECONDS, RETURN_SECONDS = 30.0, 5.0


class ModelWorker:
    """Owns the engine process of one model and what turns jobs into its requests."""

    def __init__(self, entry: ModelEntry, settings: Settings, health: GpuMonitor) -> None:
        self._entry = entry
        self._settings = settings
        self._health = health
        self._used_before: int | None = None
        self._rates = ThroughputMeter()
        self._runtime: WorkerRuntime | None = None
        self._generations: GenerationHandler | None = None
        self._failure: EnginehouseError | None = None
        self._engine: EngineClient | None = None
        self._closing = threading.Event()

    def open(self, runtime: WorkerRuntime) -> None:
        """Begin to load; returns at once. The holder is told of every step."""
        self._runtime = runtime
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def close(self) -> None:
        """End the engine process, and see that its GPU memory has come back."""
        self._closing.set()
        if self._engine is None:
            return
        held = self._health.used()
        self._engine.close()
        if self._used_before is not None and self._health.wait_for_memory_release(self._used_before, RETURN_SECONDS):
            logger.info("model %s has given back %s", self._entry.name, format_gib(max(0, held - self._health.used())))

    def stats(self) -> dict[str, Any]:
        """What the engine is doing now: its last beat, and how fast it went since the one that was asked for before."""
        beat = self._engine.beat if self._engine is not None else None
        told: dict[str, Any] = {
            "engine": self._entry.engine,
            "device": self._settings.worker_device or "auto",
            "in_flight": self._engine.limit if self._engine is not None else self._entry.max_in_flight,
            "attention": self._engine.attention if self._engine is not None else "",
        }
        return told | (vars(beat) | self._rates.of(beat, time.monotonic()) if beat is not None else {})

    def generate(self, attempt: Attempt) -> Result:
        """The body of a generation job."""
        if self._generations is None or self._failure is not None:
            raise self._failure or ModelUnavailable(f"model {self._entry.name} is not loaded")
        return self._generations.run(attempt)

    def _load(self) -> None:
        pause = FIRST_PAUSE
        while not self._closing.is_set():
            try:
                self._load_once()
                return
            except EnginehouseError as error:
                self._fail(error.message)
            except Exception as error:
                # The top of this thread: whatever stops a model from loading is told to its jobs.
                logger.exception("model %s could not be prepared", self._entry.name)
                self._fail(f"{type(error).__name__}: {error}")
            if self._engine is not None:
                self._engine.close()
            # The hub may come back, or somebody may mend the folder.
            self._closing.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _load_once(self) -> None:
        entry, settings = self._entry, self._settings
        folder = None
        if entry.engine != ECHO:
            folder = prepare(entry, settings.prepared_models, lambda step, fraction: self._tell("loading", step, fraction))
        self._make_room()
        # The engine reads its weights while this process reads the tokenizer.
        self._engine = EngineClient(
            entry, settings, device=self._health.device(settings.worker_device), on_step=self._on_step, on_state=self._on_state
        )
        self._engine.start()
        text = TextCodec(entry, folder)
        self._generations = GenerationHandler(entry, text, self._engine, Sessions(connect(settings.redis_url), settings))
        self._on_state(self._engine.state)

    def _make_room(self) -> None:
        """What was here before, in this process or another, may not have given back all its memory yet."""
        need = estimate_memory(self._entry, self._settings.prepared_models)
        self._health.wait_for_free_memory(need.each, ROOM_SECONDS, lambda sentence: self._tell("loading", sentence, 0.0))
        if self._used_before is None:
            self._used_before = self._health.used()

    def _on_step(self, step: StepOutput) -> None:
        if self._generations is not None:
            self._generations.on_step(step)

    def _on_state(self, state: EngineState) -> None:
        if state.phase == "ready" and self._generations is None:
            self._tell("loading", "reading the tokenizer", 1.0)
        elif state.phase == "failed":
            self._fail(state.message)
        elif state.phase != "stopped":
            self._failure = None
            # While it is stalled no job is claimed; to the outside a worker is then one that gets ready.
            self._tell("warming" if state.phase == "stalled" else state.phase, state.message, state.fraction)

    def _fail(self, reason: str) -> None:
        self._failure = ModelUnavailable(
            f"model {self._entry.name} could not be loaded: {reason}; once that is mended, submit the job again"
        )
        logger.error("%s", self._failure.message)
        self._tell("failed", reason, 0.0)

    def _tell(self, phase: str, message: str, fraction: float) -> None:
        if self._runtime is not None:
            self._runtime.update_status(phase=phase, message=message, fraction=fraction)
