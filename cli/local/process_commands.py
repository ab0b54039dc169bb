"""The command line and the environment of every long-running process.

The supervisor, ``enginehouse worker`` and ``enginehouse api`` all use these functions, so every process is started in one way only.
"""

import os
import sys
from pathlib import Path

from cli.errors import CommandError
from shared.errors import NotFound
from shared.liveness import frozen_seconds
from shared.models.catalogue import GENERATE, ModelEntry, load_catalogue
from shared.settings import Settings
from shared.settings_sources import file_variables, to_environment

FLOWER_USER = "enginehouse"
# In the data folder.
FLOWER_PASSWORD_FILE = "flower-password"
CHROMA_PASSWORD_FILE = "chroma-password"


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of every process that we start: the current one with these settings."""
    return {
        # A child gets the values, not the names of the files that contain them.
        **{name: value for name, value in os.environ.items() if name not in file_variables()},
        **to_environment(settings),
        # A folder called `api` or `web` in the working directory must not hide our packages.
        "PYTHONSAFEPATH": "1",
        # Python buffers output to a pipe in blocks, which would delay the log.
        "PYTHONUNBUFFERED": "1",
    }


def bracketed(host: str) -> str:
    """The host for use before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def api_command(settings: Settings, *, log_level: str = "warning") -> list[str]:
    """The HTTP API: few processes with many threads, as each waiting client occupies a thread. ``log_level`` is gunicorn's."""
    return [
        *(
            sys.executable,
            "-m",
            "gunicorn",
            "api.wsgi:app",
            "--config",
            "python:api.gunicorn_conf",
            "--bind",
            f"{bracketed(settings.host)}:{settings.port}",
        ),
        *(
            "--worker-class",
            "api.gunicorn_worker.GuardedWorker",
            "--workers",
            str(settings.api_workers),
            "--threads",
            str(settings.api_threads),
        ),
        # With fewer connections than this, gunicorn would close idle connections between requests.
        *("--worker-connections", str(2 * settings.api_threads)),
        # A process that shows no sign of life for this long is killed and replaced.
        *("--timeout", f"{frozen_seconds(settings.lease_seconds):.0f}"),
        *("--graceful-timeout", "5", "--no-control-socket", "--log-level", log_level),
    ]


def worker_command(pool: str, settings: Settings, number: int = 0) -> list[str]:
    """A worker of the pool ``gpu`` (with the model ``settings.worker_model``), ``cpu`` or ``io``; ``number`` identifies gpu workers.

    Raises CommandError if the models file has no such model, SettingsError if it cannot be read.
    """
    if pool == "gpu":
        if not settings.worker_empty:
            served_model(settings)
        return [sys.executable, "-m", "workers.gpu", "--number", str(number)]
    return [sys.executable, "-m", f"workers.{pool}"]


def flower_command(port: int) -> list[str]:
    """Flower on loopback; its login is in the environment, which other users of the machine cannot see."""
    return [
        *(sys.executable, "-m", "cli.local.flower_app"),
        *("--address=127.0.0.1", f"--port={port}", "--read_only=true", "--logging=error"),
        # Our workers send events from their start. By default Flower asks them to, every five seconds.
        "--enable_events=false",
        # Each task and worker that Flower remembers occupies memory; Celery's default of 100,000 tasks takes hundreds of megabytes.
        *("--max_tasks=5000", "--max_workers=500", "--purge_offline_workers=600"),
        # The name of a wake-up that has returned is the kind of its job, the argument the id, the result also the outcome.
        "--tasks_columns=name,args,state,exception,worker,received,runtime,result,uuid",
    ]


def chroma_command(folder: Path, port: int) -> list[str]:
    """The Chroma server for the index in ``folder``, on loopback; its password is in the environment."""
    return [sys.executable, "-m", "workers.index.chroma_server", "--path", str(folder), "--port", str(port)]


def embedder_command() -> list[str]:
    """The embedding server; its socket is in the environment."""
    return [sys.executable, "-m", "workers.index.embedding_server"]


def served_model(settings: Settings) -> ModelEntry:
    """The model of a gpu worker with these settings. Raises CommandError if it does not exist or does not generate text."""
    catalogue = load_catalogue(settings.models_file, engine=settings.engine)
    try:
        model = catalogue.get_model(settings.worker_model) if settings.worker_model else catalogue.default()
    except NotFound as error:
        raise CommandError(f"{settings.models_file}: {error.message}") from None
    if model.task != GENERATE:
        raise CommandError(
            f"{settings.models_file}: model {model.name!r} has the task {model.task} and cannot generate text; choose another model."
        )
    return model
