"""Celery worker of the gpu pool: serves one model, or waits for one, and follows its model assignment."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import redis

from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.queue_names import generation_queue, text_queue
from shared.models.catalogue import ModelEntry
from shared.redis_connection import connect
from shared.settings import Settings
from workers.gpu.assignment import WorkerCapabilities
from workers.gpu.hardware.devices import GpuReader
from workers.gpu.hardware.gpu_monitor import GpuMonitor
from workers.runtime.attempt import Handler
from workers.runtime.celery_worker import CeleryWorker, Pool
from workers.runtime.worker_runtime import WorkerRuntime

logger = logging.getLogger(__name__)

TOKENIZER_THREADS = 2


class LoadedModel(Protocol):
    """One model and what runs its jobs: an engine process of this machine, or a server."""

    def begin_loading(self, runtime: WorkerRuntime) -> None: ...
    def unload_model(self) -> None: ...
    def engine_details(self) -> dict[str, Any]: ...
    def handlers(self) -> Mapping[str, Handler]: ...


def make_model_worker(entry: ModelEntry, settings: Settings, monitor: GpuMonitor) -> LoadedModel:
    """What serves a model. Imported here, as a server needs none of the libraries of an engine."""
    if entry.uses_server:
        from workers.gpu.model_server.server_worker import ServerModelWorker

        return ServerModelWorker(entry, settings)
    from workers.gpu.model_worker import ModelWorker

    return ModelWorker(entry, settings, monitor)


class GpuWorker:
    """Serves one model (none if ``entry`` is None) until another is requested or the worker is stopped."""

    def __init__(self, capabilities: WorkerCapabilities, entry: ModelEntry | None, settings: Settings, reader: GpuReader) -> None:
        self._capabilities = capabilities
        self._entry = entry
        self._model = entry.name if entry is not None else ""
        self._monitor = GpuMonitor(reader, [gpu.index for gpu in capabilities.gpus])
        self._model_worker = make_model_worker(entry, settings, self._monitor) if entry is not None else None
        self._assignments = ModelAssignments(connect(settings.redis_url))
        keep_alive = entry.keep_alive if entry is not None else None
        self._keep_alive = settings.keep_alive_seconds if keep_alive is None else keep_alive
        self._load_on_demand = settings.load_on_demand
        self._runtime: WorkerRuntime | None = None
        self._is_leaving = False
        self._celery = CeleryWorker(
            settings,
            Pool(
                name="gpu",
                queues=(generation_queue(entry.name),) if entry is not None else (),
                side_queues={text_queue(entry.name): TOKENIZER_THREADS} if entry is not None else {},
                slots=entry.max_in_flight if entry is not None else 1,
                prefork=False,
                build_handlers=lambda: self._model_worker.handlers() if self._model_worker is not None else {},
                model=self._model,
                phase="loading" if entry is not None else "unloaded",
                on_start=self._on_start,
                on_stop=self._on_stop,
            ),
        )

    def serve(self) -> bool:
        """Work until the end; returns True if the process should restart with another model."""
        return self._celery.run_until_exit(self._capabilities.name)

    def _on_start(self, runtime: WorkerRuntime) -> None:
        self._runtime = runtime
        runtime.collect_details = self._collect_details
        runtime.on_heartbeat = self._on_heartbeat
        if self._model_worker is not None:
            self._model_worker.begin_loading(runtime)

    def _on_stop(self) -> None:
        if self._model_worker is not None:
            self._model_worker.unload_model()

    def _collect_details(self) -> Mapping[str, Any]:
        details: dict[str, Any] = {"gpus": tuple(self._monitor.sample())}
        if self._model_worker is not None:
            details["engine"] = self._model_worker.engine_details()
        return details

    def _on_heartbeat(self, desired_model: str | None) -> None:
        """Switch to the desired model, which each heartbeat returns; None if the assignment has expired."""
        assert self._runtime is not None
        if self._is_leaving or self._runtime.draining.is_set():
            return
        try:
            if desired_model is None:
                desired_model = self._capabilities.fetch_assignment(self._assignments).desired_model
            if desired_model == self._model and self._is_idle():
                assignment = self._assignments.set_desired_model(self._capabilities.name, "", "idle", expected=self._model)
                desired_model = assignment.desired_model if assignment is not None else desired_model
        except redis.RedisError as error:
            logger.info("the model assignment could not be read (%s)", error)
            return
        if desired_model is not None and desired_model != self._model:
            self._is_leaving = True
            change = f"switching from {self._model or 'no model'} to {desired_model or 'no model'}"
            logger.info("%s is %s", self._capabilities.name, change)
            self._runtime.update_status(phase="draining", message=change)
            self._celery.drain_and_exit()

    def _is_idle(self) -> bool:
        assert self._runtime is not None
        return bool(
            self._model
            and self._load_on_demand
            and self._keep_alive
            and self._runtime.worker.phase == "ready"
            and self._runtime.idle_seconds > self._keep_alive
        )
