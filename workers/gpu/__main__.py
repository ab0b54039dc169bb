"""GPU worker: ``python -m workers.gpu --number N``.

It loads the model that its assignment asks for. When another model is requested, it replaces its own process image, so that
nothing of the old model is left. Its initial model and its GPUs come from ENGINEHOUSE_WORKER_MODEL, _EMPTY and _DEVICE.
"""

import argparse
import logging
import os
import socket
import sys
import time

import redis

from shared import logs
from shared.errors import EnginehouseError, SettingsError
from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.models.catalogue import Catalogue, load_catalogue
from shared.process_exit import end_on_interrupt, exit_now
from shared.redis_connection import connect
from shared.settings import Settings
from shared.settings_sources import from_environment
from workers.gpu.app import GpuWorker
from workers.gpu.assignment import WorkerCapabilities
from workers.gpu.hardware.devices import detect_gpus

logger = logging.getLogger("workers.gpu")


def main() -> int:
    end_on_interrupt()
    parser = argparse.ArgumentParser(prog="workers.gpu", description=__doc__)
    parser.add_argument("--number", type=int, default=0, help="number of this GPU worker on its host")
    number = parser.parse_args().number
    try:
        settings = from_environment(os.environ)
        logs.configure(settings.log_level, form=settings.log_format, levels=settings.log_levels)
        catalogue = load_catalogue(settings.models_file, engine=settings.engine)
        initial_model = "" if settings.worker_empty else (settings.worker_model or catalogue.default().name)
        if initial_model:
            catalogue.get_model(initial_model)
    except SettingsError as error:
        print("\n".join(error.problems), file=sys.stderr)  # noqa: T201 before there is a log
        return 2
    except EnginehouseError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 2
    reader = detect_gpus()
    name = f"gpu{number}@{socket.gethostname()}"
    capabilities = WorkerCapabilities(name, initial_model, catalogue, settings, reader.read_gpus())
    model = _assigned_model(_fetch_assignment(capabilities, settings), catalogue)
    worker = GpuWorker(capabilities, catalogue.get_model(model) if model else None, settings, reader)
    if worker.serve():
        logger.info("%s restarts with another model", capabilities.name)
        logging.shutdown()
        # The process id stays the same, so the supervisor does not see an exit.
        os.execv(sys.executable, [sys.executable, "-m", "workers.gpu", *sys.argv[1:]])
    return 0


def _fetch_assignment(capabilities: WorkerCapabilities, settings: Settings) -> ModelAssignment:
    """The worker's assignment, as soon as Redis answers."""
    client = connect(settings.redis_url)
    while True:
        try:
            return capabilities.fetch_assignment(ModelAssignments(client))
        except redis.RedisError as error:
            logger.warning("Redis cannot be reached (%s); trying again", error)
            time.sleep(1.0)


def _assigned_model(assignment: ModelAssignment, catalogue: Catalogue) -> str:
    model = assignment.desired_model
    if not model or any(entry.name == model for entry in catalogue.models):
        return model
    logger.error("%s should load %s, which is not in the models file; it loads nothing", assignment.name, model)
    return ""


if __name__ == "__main__":
    exit_now(main())
