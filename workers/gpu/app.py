"""The Celery worker that holds one model, or waits for one, and follows the wish of its seat."""

import logging
from collections.abc import Mapping
from typing import Any

import redis

from shared.jobs.celery_broker import canary_queue, generation_queue
from shared.jobs.model_assignments import ModelAssignments
from shared.models.catalogue import ModelEntry
from shared.redis_connection import connect
from shared.settings import Settings
from workers.gpu.assignment import WorkerCapabilities
from workers.gpu.hardware.devices import GpuReader
from workers.gpu.hardware.gpu_monitor import GpuMonitor
from workers.gpu.model_worker import ModelWorker
from workers.runtime.celery_worker import CeleryWorker, Pool
from workers.runtime.worker_runtime import WorkerRuntime

logger = logging.getLogger(__name__)


class GpuWorker:
    """One life of the worker: with this model (None: with none) until another is wished, or until it is told to stop."""

    def __init__(self, capabilities: WorkerCapabilities, entry: ModelEntry | None, settings: Settings, gpus: GpuReader) -> None:
        self._capabilities = capabilities
        self._entry = entry
        self._held = entry.name if entry is not None else ""
        self._health = GpuMonitor(gpus, [gpu.index for gpu in capabilities.gpus])
        self._model = ModelWorker(entry, settings, self._health) if entry is not None else None
        self._assignments = ModelAssignments(connect(settings.redis_url))
        keep_alive = entry.keep_alive if entry is not None else None
        self._keep_alive = settings.keep_alive_seconds if keep_alive is None else keep_alive
        self._on_demand = settings.load_on_demand
        self._runtime: WorkerRuntime | None = None
        self._leaving = False
        self._celery = CeleryWorker(
            settings,
            Pool(
                name="gpu",
                queues=(generation_queue(entry.name),) if entry is not None else (),
                slots=entry.max_in_flight if entry is not None else 1,
                prefork=False,
                build_handlers=lambda: {"generate": self._model.generate} if self._model is not None else {},
                model=self._held,
                phase="loading" if entry is not None else "unloaded",
                on_start=self._open,
                on_stop=self._close,
            ),
        )

    def run(self) -> bool:
        """Work until the end; whether that came because the worker is to begin anew."""
        return self._celery.run_until_exit(celery_arguments(self._capabilities.name, self._entry))

    def _open(self, runtime: WorkerRuntime) -> None:
        self._runtime = runtime
        runtime.collect_details = self._tell
        runtime.on_heartbeat = self._hear
        if self._model is not None:
            self._model.open(runtime)

    def _close(self) -> None:
        if self._model is not None:
            self._model.close()

    def _tell(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {"gpus": tuple(self._health.look())}
        if self._model is not None:
            told["engine"] = self._model.stats()
        return told

    def _hear(self, desired_model: str | None) -> None:
        """The wish of the seat, each time that the worker has told of itself."""
        assert self._runtime is not None
        if self._leaving or self._runtime.draining.is_set():
            return
        try:
            if desired_model is None:
                desired_model = self._capabilities.take(self._assignments).desired_model
            if desired_model == self._held and self._is_idle():
                assignment = self._assignments.set_desired_model(self._capabilities.name, "", "idle", expected=self._held)
                desired_model = assignment.desired_model if assignment is not None else desired_model
        except redis.RedisError as error:
            logger.info("the seat could not be asked (%s)", error)
            return
        if desired_model is not None and desired_model != self._held:
            self._leaving = True
            what = f"gives up {self._held or 'nothing'} for {desired_model or 'nothing'}"
            logger.info("%s %s", self._capabilities.name, what)
            self._runtime.update_status(phase="draining", message=what)
            self._celery.drain_and_exit()

    def _is_idle(self) -> bool:
        assert self._runtime is not None
        return bool(
            self._held
            and self._on_demand
            and self._keep_alive
            and self._runtime.worker.phase == "ready"
            and self._runtime.idle_seconds > self._keep_alive
        )


def celery_arguments(name: str, entry: ModelEntry | None) -> list[str]:
    """The options of the Celery worker: as many threads as jobs at once, and the queue of its model."""
    queue = generation_queue(entry.name) if entry is not None else canary_queue(name)
    slots = entry.max_in_flight if entry is not None else 1
    # Flower lives on events. Workers need not know each other, and asking around delays their start by a second.
    return [
        *("--pool", "threads", "--concurrency", str(slots), "--queues", queue, "--hostname", name),
        *("--task-events", "--without-mingle", "--without-gossip"),
    ]
