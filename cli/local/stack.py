"""Run the whole stack on one machine: check the configuration, start all processes, wait until they are ready, and stop them.

This is the supervisor process that ``enginehouse up`` starts and guards (``python -m cli.local.stack``). It reads its settings from
the environment, like every other process.
"""

import argparse
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import redis

from cli.errors import CommandError
from cli.local.console_log import ConsoleLog
from cli.local.data_folder_lock import data_folder_locked
from cli.local.disk_check import check_disk_space
from cli.local.guardian import GUARDIAN_GONE
from cli.local.log_file import log_file
from cli.local.model_assignments import assign_models
from cli.local.placement import Replica, models_to_load, place_models
from cli.local.process_commands import (
    CHROMA_PASSWORD_FILE,
    FLOWER_PASSWORD_FILE,
    FLOWER_USER,
    api_command,
    bracketed,
    chroma_command,
    embedder_command,
    environment_of,
    flower_command,
    worker_command,
)
from cli.local.readiness import displayed_path, wait_until_ready
from cli.local.redis_server import (
    check_redis,
    free_port,
    is_answering,
    read_or_create_secret,
    redis_command,
    redis_url,
    write_private,
)
from cli.local.settings_report import describe_settings
from cli.local.supervisor import Service, ShutdownRequest, Supervisor
from shared.audit_log import audit_log_of, command_user
from shared.documents.data_state import MESSAGES, DataState, DataVersionError, check_folder_version
from shared.documents.index_health import clear_silence
from shared.errors import SettingsError
from shared.jobs.job_index import JobIndex
from shared.liveness import frozen_seconds, liveness_file
from shared.machine import is_loopback, memory_bytes
from shared.models.catalogue import EMBED, Catalogue, load_catalogue
from shared.owners.closed_marker import ClosedMarker
from shared.owners.store import LOCAL, ApiKeys
from shared.packaged_files import CODE_ROOT
from shared.process_exit import exit_now
from shared.redis_connection import connect
from shared.settings import Settings
from shared.settings_sources import from_environment
from shared.systemd import notify
from workers.gpu.hardware.devices import detect_gpus
from workers.gpu.hardware.memory_estimate import estimate_memory
from workers.index.hash_embedder import SCHEME as HASH_SCHEME

# Flower only looks on. The others wait for what they need: the API for the workers, they for the index and Redis.
BEFORE_WORKERS, AFTER_WORKERS = (("api", "flower"),), (("embedder", "chroma", "redis"),)
# Advice about the kernel settings of the machine, which Redis prints at each start. It goes to the log of Redis.
REDIS_NOISE = re.compile(r"# WARNING")
# How often to check whether processes are frozen and whether workers wait for an unresponsive index.
CHECK_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """The processes to run and their ports. ``redis_port`` and ``chroma_port`` are None for external servers."""

    settings: Settings
    redis_port: int | None
    chroma_port: int | None
    flower_port: int | None
    replicas: tuple[Replica, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def stop_order(self) -> tuple[tuple[str, ...], ...]:
        return (*BEFORE_WORKERS, (*(replica.name for replica in self.replicas), "cpu", "io"), *AFTER_WORKERS)

    @property
    def api_url(self) -> str:
        return f"http://{bracketed(self.settings.host)}:{self.settings.port}"

    def settings_of(self, user: str) -> Settings:
        """The settings of a process, with its own login of Redis if the Redis is ours."""
        if not self.redis_port:
            return self.settings
        return replace(self.settings, redis_url=redis_url(self.settings.data_dir / "redis", self.redis_port, user))

    @property
    def flower_url(self) -> str | None:
        return f"http://127.0.0.1:{self.flower_port}" if self.flower_port else None

    @property
    def flower_password(self) -> str:
        return read_or_create_secret(self.flower_password_file)

    @property
    def flower_password_file(self) -> Path:
        return self.settings.data_dir / FLOWER_PASSWORD_FILE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack until a shutdown request. Returns the exit status: 0 after a shutdown, 2 if the stack cannot start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--guardian", type=int, required=True)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--own-redis", action="store_true")
    parser.add_argument("--own-chroma", action="store_true")
    parser.add_argument("--chroma-port", type=int, default=0)
    parser.add_argument("--flower", action="store_true")
    parser.add_argument("--flower-port", type=int, default=0)
    parser.add_argument("--sources", type=json.loads, default={}, help="where each given setting comes from, by its name")
    options = parser.parse_args(arguments)
    try:
        settings = from_environment(os.environ)
        check_disk_space(settings.data_dir, settings.min_free_bytes)
        with data_folder_locked(settings.data_dir, options.guardian):
            check_folder_version(settings.data_dir)
            return run_stack(_plan(settings, options), guardian=options.guardian)
    except (CommandError, DataVersionError) as error:
        print(error, file=sys.stderr)
    except SettingsError as error:
        print("\n".join(error.problems), file=sys.stderr)
    return 2


def run_stack(plan: Plan, *, guardian: int) -> int:
    """Start everything, report when it is ready, keep it running until a shutdown request, and stop it."""
    log = ConsoleLog(file=log_file(plan.settings.data_dir), form=plan.settings.log_format)
    state = StateFile(plan.settings.data_dir / "state.json", log)

    def write_state() -> None:
        state.write(_describe(plan, supervisor.pids, guardian))

    frozen = frozen_seconds(plan.settings.lease_seconds)
    supervisor: Supervisor = Supervisor(log, guardian_signal=GUARDIAN_GONE, on_change=write_state, frozen_seconds=frozen)
    if os.getppid() != guardian:  # it died before our signal handlers were installed
        return 1
    try:
        _start(plan, supervisor, log)
        if wait_until_ready(plan.settings, supervisor, log):
            log.say(f"Enginehouse is ready: {plan.api_url}")
            notify("READY=1")
            if plan.flower_port:
                log.say(
                    f"Flower (queues and workers): {plan.flower_url}, user {FLOWER_USER}, "
                    f"password in {displayed_path(plan.flower_password_file)}"
                )
        notes = connect(plan.settings.redis_url, timeout=1.0, retries=0)
        while supervisor.shutdown_request is ShutdownRequest.NONE:
            supervisor.process_events(CHECK_SECONDS)
            write_state()
            if plan.chroma_port and _index_is_unresponsive(notes):
                log.say("Chroma is running but does not answer requests for a collection; restarting it")
                supervisor.kill_service("chroma")
        log.say(
            "Stopping: waiting for running jobs; press Ctrl-C again to stop immediately."
            if supervisor.shutdown_request is ShutdownRequest.DRAIN
            else "Stopping immediately."
        )
    finally:
        log.status("")
        notify("STOPPING=1")
        supervisor.stop_services(plan.stop_order)
        state.remove()
    log.say("Enginehouse has stopped.")
    log.flush()
    return 0


def _plan(settings: Settings, options: argparse.Namespace) -> Plan:
    """Check the configuration before the first process starts, and choose free ports."""
    catalogue = load_catalogue(settings.models_file, engine=settings.engine)
    entries = models_to_load(catalogue, options.model or [name for name in [settings.worker_model] if name])
    _check_port_is_free(settings.host, settings.port, "--port")
    if not options.own_redis:
        for warning in check_redis(settings.redis_url, allow_unsafe=settings.allow_unsafe_redis):
            print(f"Warning: {warning}", file=sys.stderr)
    for port, option in ((options.chroma_port, "--chroma-port"), (options.flower_port, "--flower-port")):
        if port:
            _check_port_is_free("127.0.0.1", port, option)
    redis_port = free_port() if options.own_redis else None
    chroma_port = (options.chroma_port or free_port()) if options.own_chroma else None
    flower_port = (options.flower_port or free_port(preferred=5555)) if options.flower else None
    if redis_port:
        settings = replace(settings, redis_url=redis_url(settings.data_dir / "redis", redis_port))
    if chroma_port:
        password = read_or_create_secret(settings.data_dir / CHROMA_PASSWORD_FILE)
        settings = replace(settings, chroma_url=f"http://:{password}@127.0.0.1:{chroma_port}")
    if flower_port and not settings.flower_url and is_loopback(settings.host):
        settings = replace(settings, flower_url=f"http://127.0.0.1:{flower_port}")
    settings = replace(settings, embedding_socket=_embedding_socket(settings.data_dir, catalogue))
    replicas = place_models(entries, detect_gpus().read_gpus(), lambda entry: estimate_memory(entry, settings.prepared_models))
    return Plan(settings, redis_port, chroma_port, flower_port, tuple(replicas), options.sources)


def _start(plan: Plan, supervisor: Supervisor, log: ConsoleLog) -> None:
    settings, environment = plan.settings, environment_of(plan.settings)
    settings_of = plan.settings_of
    for name in (name for names in plan.stop_order for name in names):
        log.announce(name)
    if plan.redis_port:
        folder = settings.data_dir / "redis"
        command = redis_command(folder, plan.redis_port, settings.redis_memory_bytes or memory_bytes() // 4)
        supervisor.start_service(Service("redis", command, environment, noise=REDIS_NOISE, noise_log=folder / "server.log"))
        while supervisor.shutdown_request is ShutdownRequest.NONE and not is_answering(settings.redis_url):
            log.status("waiting for: Redis")
            supervisor.process_events(0.05)
    if supervisor.shutdown_request is not ShutdownRequest.NONE:
        return
    client = connect(settings.redis_url)
    state = DataState(client, settings, index_jobs=JobIndex(client).add_missing)
    state.check_versions()
    records = state.note_changes()
    if records != "complete":
        log.say(
            f"{MESSAGES[records]}. Run `enginehouse collections recover` when the stack is ready: it makes the missing records."
        )
    _create_first_key(settings, log)
    if plan.chroma_port:
        command = chroma_command(settings.data_dir / "chroma", plan.chroma_port)
        # It needs no Redis.
        own = {name: value for name, value in environment.items() if name != "REDIS_URL"} | {"RUST_LOG": "warn"}
        supervisor.start_service(Service("chroma", command, own, directory=CODE_ROOT))
    if settings.embedding_socket:
        own = {name: value for name, value in environment.items() if name != "REDIS_URL"}
        liveness = liveness_file(settings.data_dir, "embedder")
        supervisor.start_service(Service("embedder", embedder_command(), own, directory=CODE_ROOT, liveness=liveness))
    assign_models(connect(settings.redis_url), plan.replicas)
    grace = settings.drain_seconds + 10
    # Celery and gunicorn import from the working directory first: a folder called `api` there must not replace ours.
    for replica in plan.replicas:
        command, own = _replica(replica, settings_of("gpu"))
        liveness = liveness_file(settings.data_dir, replica.name)
        supervisor.start_service(Service(replica.name, command, own, grace=grace, directory=CODE_ROOT, liveness=liveness))
    for pool in ("cpu", "io"):
        own = environment_of(settings_of(pool))
        command, liveness = worker_command(pool, settings), liveness_file(settings.data_dir, pool)
        supervisor.start_service(Service(pool, command, own, grace=grace, directory=CODE_ROOT, liveness=liveness))
    command, own = api_command(settings), environment_of(settings_of("api"))
    supervisor.start_service(Service("api", command, own, directory=CODE_ROOT, liveness=liveness_file(settings.data_dir, "api")))
    if plan.flower_port:
        own = environment_of(settings_of("flower")) | {"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{plan.flower_password}"}
        supervisor.start_service(Service("flower", flower_command(plan.flower_port), own, grace=5, directory=CODE_ROOT))


def _embedding_socket(data_dir: Path, catalogue: Catalogue) -> Path | None:
    """The socket of the embedding server; None if it has no model to load, or the data folder can have no socket, as its file system has
    none or its path is too long."""
    if all(entry.task != EMBED or entry.url.startswith(HASH_SCHEME) for entry in catalogue.models):
        return None
    path = data_dir.resolve() / "embedder.sock"
    path.unlink(missing_ok=True)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
    except OSError as error:
        print(
            f"Warning: {path} cannot be a Unix socket ({error}), so each worker process loads its own embedding models.",
            file=sys.stderr,
        )
        return None
    path.unlink()
    return path


def _create_first_key(settings: Settings, log: ConsoleLog) -> None:
    """Create a key and print it if the API listens beyond this machine, where every caller needs one, and none exists yet
    or comes from the keys file."""
    if is_loopback(settings.host) or settings.allow_open or settings.keys_file is not None:
        return
    created = ApiKeys(connect(settings.redis_url)).create_first()
    if created is None:
        return
    ClosedMarker(settings.data_dir).set()
    details = {"name": created[0].name, "for_owner": LOCAL, "admin": True}
    audit_log_of(settings).record("key.create", command_user(), targets=[created[0].id], details=details)
    log.say(
        f"Other machines can reach {settings.host}, so every call needs an API key. This is the first one, for owner {LOCAL} and "
        f"/admin. Store it now, as it cannot be shown again:\n\n  {created[1]}\n",
        secret=True,
    )


def _index_is_unresponsive(notes: redis.Redis) -> bool:
    try:
        return clear_silence(notes)
    except redis.RedisError:
        return False  # the workers report it again


def _replica(replica: Replica, settings: Settings) -> tuple[list[str], dict[str, str]]:
    """The command and environment of one model worker."""
    devices = ",".join(map(str, replica.devices)) or settings.worker_device
    worker_settings = replace(settings, worker_model=replica.model, worker_empty=not replica.model, worker_device=devices)
    return worker_command("gpu", worker_settings, replica.number), environment_of(worker_settings)


def _check_port_is_free(host: str, port: int, option: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CommandError(
            f"Port {port} of {host} cannot be used ({error.strerror}): stop the program that uses it, or choose another with {option}."
        ) from None


class StateFile:
    """``state.json``: addresses and process ids for other commands. It contains passwords, so only the owner can read it."""

    def __init__(self, path: Path, log: ConsoleLog) -> None:
        self._path = path
        self._log = log
        self._written: dict[str, object] | None = None
        self._failed = False

    def write(self, state: dict[str, object]) -> None:
        """Replace the file if the state has changed. If that fails, as on a full disk, the next call tries again."""
        if state == self._written:
            return
        try:
            write_private(self._path, json.dumps(state, indent=2) + "\n")
        except OSError as error:
            if not self._failed:
                self._log.say(
                    f"{self._path} cannot be written ({error.strerror}), so commands may use outdated process ids until it can"
                )
            self._failed = True
        else:
            self._written, self._failed = state, False

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _describe(plan: Plan, pids: Mapping[str, int], guardian: int) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "launcher_pid": guardian,
        "api": plan.api_url,
        "redis": plan.settings.redis_url,
        "chroma": plan.settings.chroma_url,
        "flower": plan.flower_url,
        "processes": dict(pids),
        "settings": describe_settings(plan.settings, plan.sources),
    }


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # before our signal handlers were installed
        exit_now(main())
    sys.exit(128 + signal.SIGINT)
