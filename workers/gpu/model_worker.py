"""Model worker: prepares and loads one model, reports its progress, and runs generation jobs on it.

Everything that is text happens here; the engine process handles token ids only.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from shared.errors import EnginehouseError, ModelUnavailable
from shared.machine import freeze_objects
from shared.models.catalogue import ECHO, ModelEntry
from shared.redis_connection import STEADY_RETRIES, connect
from shared.sessions.store import Sessions
from shared.settings import Settings
from workers.gpu.engine.messages import StepOutput
from workers.gpu.engine_client.engine_client import EngineClient, load_error
from workers.gpu.engine_client.engine_interpreter import find_interpreter
from workers.gpu.engine_client.restart_policy import FIRST_UNLOADABLE_DELAY, LONGEST_UNLOADABLE_DELAY
from workers.gpu.engine_client.throughput_meter import ThroughputMeter
from workers.gpu.generation import GenerationHandler
from workers.gpu.hardware.devices import format_gib
from workers.gpu.hardware.gpu_monitor import GpuMonitor
from workers.gpu.hardware.memory_estimate import estimate_memory
from workers.gpu.model_tokenizer import hide_torch
from workers.gpu.tokenization import TextCodec
from workers.gpu.tokenization_jobs import run_tokenization
from workers.gpu.weights import describe_unpinned_revision, prepare_adapters, prepare_model
from workers.runtime.attempt import Attempt, Handler, Handover, Result
from workers.runtime.worker_runtime import WorkerRuntime

logger = logging.getLogger(__name__)

# How long to wait for GPU memory: to become free before a model is loaded, and to be released after its engine has ended.
FREE_MEMORY_SECONDS, RELEASE_SECONDS = 30.0, 5.0


class ModelWorker:
    """Owns the engine process of one model, and its tokenizer."""

    def __init__(self, entry: ModelEntry, settings: Settings, monitor: GpuMonitor) -> None:
        self._entry = entry
        self._settings = settings
        self._monitor = monitor
        self._used_before: int | None = None
        self._throughput = ThroughputMeter()
        self._runtime: WorkerRuntime | None = None
        self._handler: GenerationHandler | None = None
        self._failure: EnginehouseError | None = None
        self._engine: EngineClient | None = None
        self._closing = threading.Event()
        self._engine_lock = threading.Lock()
        # States are reported by two threads, and the last report must be of the latest state.
        self._report_lock = threading.Lock()

    def begin_loading(self, runtime: WorkerRuntime) -> None:
        """Start loading and return at once; progress goes to ``runtime``."""
        self._runtime = runtime
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def unload_model(self) -> None:
        """End the engine process, and check that its GPU memory was released. No other engine is started after that."""
        self._closing.set()
        with self._engine_lock:
            engine = self._engine
        if engine is None:
            return
        used = self._monitor.memory_used()
        engine.stop_engine()
        if self._used_before is not None and self._monitor.wait_for_memory_release(self._used_before, RELEASE_SECONDS):
            logger.info("model %s released %s", self._entry.name, format_gib(max(0, used - self._monitor.memory_used())))

    def engine_details(self) -> dict[str, Any]:
        """The engine's load: its last heartbeat, and its throughput since the previous call."""
        heartbeat = self._engine.last_heartbeat if self._engine is not None else None
        details: dict[str, Any] = {
            "engine": self._entry.engine,
            "pid": self._engine.pid if self._engine is not None else None,
            "device": self._settings.worker_device or "auto",
            "in_flight": self._engine.limit if self._engine is not None else self._entry.max_in_flight,
            "restarts": self._engine.restarts if self._engine is not None else 0,
            "attention": self._engine.supervisor.attention_backend if self._engine is not None else "",
            "max_context": self._engine.supervisor.max_context if self._engine is not None else 0,
        }
        if heartbeat is None:
            return details
        return details | vars(heartbeat) | self._throughput.update_rates(heartbeat, time.monotonic())

    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by job kind."""
        return {"generate": self.generate, "tokenize": self.tokenize}

    def generate(self, attempt: Attempt) -> Result | Handover:
        """Handle a generation job."""
        return self._loaded_handler().run(attempt)

    def tokenize(self, attempt: Attempt) -> Mapping[str, Any]:
        """Handle a job that needs only the tokenizer."""
        return run_tokenization(self._loaded_handler().codec, attempt.spec)

    def _loaded_handler(self) -> GenerationHandler:
        if self._handler is None or self._failure is not None:
            raise self._failure or ModelUnavailable(f"Model {self._entry.name} is not loaded.")
        return self._handler

    def _load(self) -> None:
        pause = FIRST_UNLOADABLE_DELAY
        while not self._closing.is_set():
            try:
                self._load_once()
                return
            except EnginehouseError as error:
                reason = error.message
            except Exception as error:
                # The top of this thread: whatever prevents a model from loading is reported to its jobs.
                logger.exception("model %s could not be prepared", self._entry.name)
                reason = f"{type(error).__name__}: {error}"
            # Stopped first: an engine that is still loading would report that, and so hide the failure.
            if self._engine is not None:
                self._engine.stop_engine()
            self._fail(reason)
            # The hub may become reachable, or the folder may be corrected.
            self._closing.wait(pause)
            pause = min(pause * 2, LONGEST_UNLOADABLE_DELAY)

    def _load_once(self) -> None:
        entry, settings = self._entry, self._settings
        folder = None
        find_interpreter(entry.engine, settings)
        if entry.engine != ECHO:
            folder = prepare_model(entry, settings.prepared_models, lambda step, done: self._report("loading", step, done))
            prepare_adapters(entry, lambda step, done: self._report("loading", step, done))
            if advice := describe_unpinned_revision(entry, folder):
                logger.info(advice)
        self._wait_for_memory()
        engine = EngineClient(
            entry,
            settings,
            device=self._monitor.visible_devices(settings.worker_device),
            on_step=self._on_step,
            on_state=lambda state: self._report_engine_state(),
        )
        with self._engine_lock:
            if self._closing.is_set():
                return
            self._engine = engine
            engine.start_engine()
        if not entry.trust_remote_code:
            hide_torch()
        # The engine reads its weights while this process reads the tokenizer.
        codec = TextCodec(entry, folder)
        self._handler = GenerationHandler(
            entry, codec, engine, Sessions(connect(settings.redis_url, retries=STEADY_RETRIES), settings)
        )
        freeze_objects()
        self._report_engine_state()

    def _wait_for_memory(self) -> None:
        """Wait until the previous engine, of this process or another, has released its memory."""
        estimate = estimate_memory(self._entry, self._settings.prepared_models)
        self._monitor.wait_for_free_memory(
            estimate.per_gpu, FREE_MEMORY_SECONDS, lambda sentence: self._report("loading", sentence, 0.0)
        )
        if self._used_before is None:
            self._used_before = self._monitor.memory_used()

    def _on_step(self, step: StepOutput) -> None:
        if self._handler is not None:
            self._handler.on_step(step)

    def _report_engine_state(self) -> None:
        assert self._engine is not None
        with self._report_lock:
            state = self._engine.state
            if state.phase == "ready":
                self._monitor.engine_has_loaded()
            elif state.phase in ("loading", "warming"):
                self._monitor.engine_is_loading()
            if state.phase == "ready" and self._handler is None:
                self._report("loading", "reading the tokenizer", 1.0)
            elif state.phase == "failed":
                self._fail(state.message)
            elif state.phase != "stopped":
                self._failure = None
                if self._handler is not None:
                    self._handler.codec.limit_context(self._engine.supervisor.max_context)
                # A worker claims no job while its engine is stalled, so to the outside it is warming up.
                self._report("warming" if state.phase == "stalled" else state.phase, state.message, state.fraction)

    def _fail(self, reason: str) -> None:
        self._failure = load_error(self._entry.name, reason)
        logger.error("%s", self._failure.message)
        self._report("failed", reason.removeprefix(f"Model {self._entry.name}: "), 0.0)

    def _report(self, phase: str, message: str, fraction: float) -> None:
        if self._runtime is not None:
            self._runtime.update_status(phase=phase, message=message, fraction=fraction)
