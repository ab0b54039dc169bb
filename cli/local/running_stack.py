"""Connect to the Redis and Chroma of a running stack: by settings, or by the ``state.json`` in its data folder."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import redis

from cli.errors import CommandError
from cli.local.data_folder_lock import lock_holder
from shared.liveness import is_unresponsive, liveness_file
from shared.machine import is_stopped
from shared.redis_connection import OUTAGE, connect
from shared.settings import Settings
from shared.settings_sources import is_given
from shared.urls import without_login

MODELS_FILE, ENGINE = "ENGINEHOUSE_MODELS_FILE", "ENGINEHOUSE_ENGINE"


def connect_to_stack(settings: Settings, *, explicit: bool) -> redis.Redis:
    """A client of the stack's Redis, after a successful ping. ``explicit``: use the URL in the settings. Raises CommandError."""
    url = stack_redis_url(settings, explicit=explicit)
    client = connect(url, timeout=5, retries=0)
    try:
        client.ping()
    except OUTAGE as error:
        raise CommandError(f"Redis at {without_login(url)} does not answer ({error}).") from None
    return client


def stack_redis_url(settings: Settings, *, explicit: bool) -> str:
    """The URL of the stack's Redis: that of the settings if it is ``explicit`` or given in the environment or a file, else the one in
    ``state.json``. Raises CommandError if no stack runs on the data folder."""
    if explicit or is_given(os.environ, "REDIS_URL"):
        return settings.redis_url
    state = settings.data_dir / "state.json"
    try:
        return str(json.loads(state.read_text())["redis"])
    except (FileNotFoundError, NotADirectoryError):
        raise CommandError(
            f"No Enginehouse is running on the data folder {settings.data_dir}: start it with `enginehouse up`, "
            "or select another folder with --data or a Redis with --redis."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{state} cannot be read ({error}): select a Redis with --redis.") from None


def list_processes(data_dir: Path) -> list[dict[str, Any]]:
    """The processes of the stack on a data folder, each with its id and its state: ``running``, ``frozen`` or ``missing``."""
    try:
        state = json.loads((data_dir / "state.json").read_text())
    except (OSError, ValueError):
        return []
    return [
        {"process": name, "pid": pid, "state": _process_state(pid, liveness_file(data_dir, name))}
        for name, pid in state.get("processes", {}).items()
    ]


def _process_state(pid: int, liveness: Path) -> str:
    if not psutil.pid_exists(pid):
        return "missing"
    return "frozen" if is_stopped(pid) or is_unresponsive(liveness, pid) else "running"


def stop_stack(data_dir: Path, wait: Callable[[float], None] = time.sleep) -> None:
    """Send SIGTERM to the stack on a data folder and wait until it has stopped. Raises CommandError if none runs there."""
    guardian = lock_holder(data_dir)
    if guardian is None:
        raise CommandError(f"No Enginehouse is running on the data folder {data_dir}: select another folder with --data.")
    try:
        os.kill(guardian, signal.SIGTERM)
    except ProcessLookupError:  # it was killed, so that the stack is stopping already
        pass
    except PermissionError:
        raise CommandError(
            f"The Enginehouse on the data folder {data_dir} belongs to another user, who has to stop it."
        ) from None
    while lock_holder(data_dir) == guardian:
        wait(0.1)


def with_stack_models(settings: Settings) -> Settings:
    """The settings with the models file and the engine of the stack that runs on the data folder, unless the environment sets a file."""
    if is_given(os.environ, MODELS_FILE):
        return settings
    try:
        state = json.loads((settings.data_dir / "state.json").read_text())
        own = {row["setting"]: row["value"] for row in state["settings"]}
        return replace(settings, models_file=Path(own[MODELS_FILE]), engine=own[ENGINE])
    except (OSError, ValueError, KeyError, TypeError):  # no stack runs, or one of an earlier version
        return settings


def with_stack_chroma(settings: Settings) -> Settings:
    """The settings with the address of the stack's Chroma server, unless the environment sets one."""
    state = settings.data_dir / "state.json"
    if is_given(os.environ, "ENGINEHOUSE_CHROMA_URL") or not state.exists():
        return settings
    return replace(settings, chroma_url=json.loads(state.read_text())["chroma"])
