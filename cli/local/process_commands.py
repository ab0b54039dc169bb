"""The exact command line of every long-running process, and the environment that it reads.

The supervisor, ``enginehouse worker`` and the compose file all start processes by these, so that there is one answer to
"how is a worker started?". Knows nothing about when they start or what watches them.
"""

import os
import shutil
import sys
from pathlib import Path

from cli.errors import CommandError
from shared.errors import NotFound
from shared.models.catalogue import GENERATE, ModelEntry, load_catalogue
from shared.owners.store import Owners
from shared.packaged_files import CODE_ROOT
from shared.redis_connection import OUTAGE, connect
from shared.settings import Settings, to_environment

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of every process that we start: the current one with these settings."""
    return {
        **os.environ,
        **to_environment(settings),
        # A folder called `api` or `web` in the working directory must not hide our packages.
        "PYTHONSAFEPATH": "1",
        # Python buffers output to a pipe in blocks, which would delay the log.
        "PYTHONUNBUFFERED": "1",
    }


def bracketed(host: str) -> str:
    """The host as it stands before a colon and a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def api_command(settings: Settings) -> list[str]:
    """The HTTP face: a few processes, many threads, as a waiting client holds a thread."""
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
            *("--chdir", str(CODE_ROOT)),
        ),
        *("--worker-class", "gthread", "--workers", str(settings.api_workers), "--threads", str(settings.api_threads)),
        # Beyond the threads there must be room, or gunicorn keeps no connection open between requests.
        *("--worker-connections", str(2 * settings.api_threads)),
        *("--graceful-timeout", "5", "--no-control-socket", "--log-level", "warning"),
    ]


def worker_command(pool: str, settings: Settings, number: int = 0) -> list[str]:
    """A worker of one pool: ``gpu`` (holds the model ``settings.worker_model``), ``cpu`` or ``io``; ``number`` tells gpu workers apart.

    Raises Refusal if the models file has no such model, SettingsError if it cannot be read.
    """
    if pool == "gpu":
        if not settings.worker_empty:
            served_model(settings)
        return [sys.executable, "-m", "workers.gpu", "--number", str(number)]
    if pool == "cpu":
        shape = ["--pool", "prefork", "--concurrency", str(settings.cpu_workers), "--queues", "cpu"]
    else:
        shape = ["--pool", "threads", "--concurrency", str(settings.io_workers), "--queues", "io"]
    celery = [*_celery(f"workers.{pool}.app"), "worker"]
    # Flower lives on events. Workers need not know each other, and asking around delays their start by a second.
    return [*celery, *shape, "--hostname", f"{pool}@%h", "--task-events", "--without-mingle", "--without-gossip"]


def flower_command(port: int) -> list[str]:
    """Flower on loopback; its login comes by the environment, where other users of the machine do not see it."""
    return [
        *_celery("cli.local.flower_app"),
        "flower",
        *("--address=127.0.0.1", f"--port={port}", "--read_only=true", "--logging=error"),
        # A ticket's argument is its queue, and its result the job that it served and how that ended.
        "--tasks_columns=args,state,result,worker,received,runtime,uuid",
    ]


def _celery(app: str) -> list[str]:
    # Celery, like gunicorn, imports from its working directory first: a user's folder must not replace our packages.
    return [sys.executable, "-m", "celery", "--quiet", "--workdir", str(CODE_ROOT), "--app", app]


def chroma_command(folder: Path, port: int) -> list[str]:
    """The server that owns the index in ``folder``, on loopback as it knows no login."""
    beside = Path(sys.executable).with_name("chroma")
    program = str(beside) if beside.exists() else shutil.which("chroma")
    if program is None:
        raise CommandError("There is no Chroma server here: install the package chromadb.")
    return [program, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]


def refuse_open_address(settings: Settings, *, keys_possible: bool = True) -> None:
    """Raises Refusal if the API would listen beyond this machine although nobody has to log in. Asks Redis for keys, if there
    can be any."""
    if settings.host in LOOPBACK or settings.allow_open:
        return
    try:
        protected = keys_possible and Owners(connect(settings.redis_url, timeout=5)).exist()
    except OUTAGE as error:
        raise CommandError(f"Redis cannot be asked whether there are API keys ({error}).") from None
    if not protected:
        raise CommandError(
            f"There is no API key yet, so Enginehouse listens on this machine only, not on {settings.host}. "
            "Make one with `enginehouse keys create --name NAME` while it runs here, then start it there."
        )


def served_model(settings: Settings) -> ModelEntry:
    """The model that a gpu worker with these settings holds. Raises Refusal if there is none of that name that generates."""
    catalogue = load_catalogue(settings.models_file, engine=settings.engine)
    try:
        model = catalogue.get(settings.worker_model) if settings.worker_model else catalogue.default()
    except NotFound as error:
        raise CommandError(f"{settings.models_file}: {error.message}") from None
    if model.task != GENERATE:
        raise CommandError(
            f"{settings.models_file}: {model.name} does not generate text (its task is {model.task}); choose another model."
        )
    return model
