"""The gpu worker: ``python -m workers.gpu --number N``. It holds the model that its seat wishes, and becomes another process
image when the wish changes, so that nothing of the old model is left.

Its own model and GPUs come from ENGINEHOUSE_WORKER_MODEL, _EMPTY and _DEVICE.
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
from shared.redis_connection import connect
from shared.settings import Settings, from_environment
from workers.gpu.app import GpuWorker
from workers.gpu.assignment import WorkerCapabilities
from workers.gpu.hardware.devices import detect_gpus

logger = logging.getLogger("workers.gpu")


def main() -> int:
    parser = argparse.ArgumentParser(prog="workers.gpu", description=__doc__)
    parser.add_argument("--number", type=int, default=0, help="tells the gpu workers of one host apart")
    number = parser.parse_args().number
    try:
        settings = from_environment(os.environ)
        logs.configure(settings.log_level)
        catalogue = load_catalogue(settings.models_file, engine=settings.engine)
        home = "" if settings.worker_empty else (settings.worker_model or catalogue.default().name)
        if home:
            catalogue.get(home)
    except SettingsError as error:
        print("\n".join(error.problems), file=sys.stderr)  # noqa: T201 before there is a log
        return 2
    except EnginehouseError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 2
    gpus = detect_gpus()
    capabilities = WorkerCapabilities(f"gpu{number}@{socket.gethostname()}", home, catalogue, settings, gpus.read())
    model = _model(_take(capabilities, settings), catalogue)
    worker = GpuWorker(capabilities, catalogue.get(model) if model else None, settings, gpus)
    if worker.run():
        logger.info("%s begins anew, to hold another model", capabilities.name)
        logging.shutdown()
        # The same process with everything in it replaced: who watches it sees no end.
        os.execv(sys.executable, [sys.executable, "-m", "workers.gpu", *sys.argv[1:]])
    return 0


def _take(capabilities: WorkerCapabilities, settings: Settings) -> ModelAssignment:
    """The worker's seat, as soon as Redis answers."""
    client = connect(settings.redis_url)
    while True:
        try:
            return capabilities.take(ModelAssignments(client))
        except redis.RedisError as error:
            logger.warning("Redis is away (%s); it is asked again", error)
            time.sleep(1.0)


def _model(assignment: ModelAssignment, catalogue: Catalogue) -> str:
    if not assignment.desired_model or any(entry.name == assignment.desired_model for entry in catalogue.models):
        return assignment.desired_model
    logger.error(
        "%s is to hold %s, which the models file no longer has; it holds nothing", assignment.name, assignment.desired_model
    )
    return ""


if __name__ == "__main__":
    sys.exit(main())
