"""Readiness of a starting stack: what it still waits for, and why a model could not be loaded."""

import http.client
import json
from pathlib import Path

import redis

from cli.local.console_log import ConsoleLog
from cli.local.supervisor import ShutdownRequest, Supervisor
from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_connection import connect
from shared.settings import Settings
from workers.gpu.engine_client.restart_policy import FIRST_UNLOADABLE_DELAY, LONGEST_UNLOADABLE_DELAY


def wait_until_ready(settings: Settings, supervisor: Supervisor, log: ConsoleLog) -> bool:
    """Show what is missing until everything is ready. False if a shutdown was requested first."""
    registry = WorkerRegistry(connect(settings.redis_url, timeout=1.0, retries=0))
    explained: set[tuple[str, str]] = set()
    while supervisor.shutdown_request is ShutdownRequest.NONE:
        missing = _missing_parts(settings)
        if not missing:
            log.status("")
            return True
        for model, reason in _failed_models(registry):
            # The API gives the reason too, which is shown once and in full above the status line.
            missing = [
                f"model {model} (failed to load)" if part.startswith(f"model {model} (failed") else part for part in missing
            ]
            if (model, reason) not in explained:
                explained.add((model, reason))
                log.say(_explain_failure(model, reason, settings.models_file))
        log.status(f"waiting for: {', '.join(missing)}")
        supervisor.process_events(0.2)
    return False


def _explain_failure(model: str, reason: str, models_file: Path) -> str:
    """What happened to a model that could not be loaded, what happens next, and what the user can do."""
    why = reason.removeprefix(f"Model {model}: ").rstrip(".")
    return (
        f"Model {model} failed to load: {why}. Enginehouse tries again after {FIRST_UNLOADABLE_DELAY:.0f} s, and then at growing "
        f"intervals of up to {LONGEST_UNLOADABLE_DELAY / 60:.0f} minutes. To use another model, press Ctrl-C and choose one from "
        f"{displayed_path(models_file)} with `enginehouse up --model NAME`."
    )


def _failed_models(registry: WorkerRegistry) -> list[tuple[str, str]]:
    """The models that a worker failed to load, each with the reason."""
    try:
        return [(worker.model, worker.message) for worker in registry.workers() if worker.phase == "failed"]
    except redis.RedisError:
        return []  # /health/ready reports the outage


def displayed_path(path: Path) -> str:
    """The path as the user would type it: relative if it is inside the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _missing_parts(settings: Settings) -> list[str]:
    """The parts that are not ready, according to the API; empty if all are."""
    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return ["the API"]
    finally:
        connection.close()
    if answer.status == 200:
        return []
    return [str(reason) for reason in body.get("waiting_for", [])] or [f"the API (status {answer.status})"]
