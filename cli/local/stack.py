"""All of Enginehouse on one machine: what is checked before the start, what is started, when it is ready, how it ends.

This is the supervisor process that ``enginehouse up`` guards (``python -m cli.local.stack``). It reads its settings from the
environment, as every other process does; knows nothing about jobs.
"""

import argparse
import fcntl
import http.client
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import redis

from cli.errors import CommandError
from cli.local.console_log import ConsoleLog
from cli.local.guardian import GUARDIAN_GONE
from cli.local.model_assignments import assign_models
from cli.local.placement import Replica, models_to_load, place_models
from cli.local.process_commands import (
    api_command,
    bracketed,
    chroma_command,
    environment_of,
    flower_command,
    refuse_open_address,
    worker_command,
)
from cli.local.redis_server import (
    check_redis,
    free_port,
    is_answering,
    read_or_create_secret,
    redis_command,
    redis_url,
    write_private,
)
from cli.local.supervisor import Service, ShutdownRequest, Supervisor
from shared.documents.index_health import take_note
from shared.errors import SettingsError
from shared.models.catalogue import load_catalogue
from shared.redis_connection import connect
from shared.settings import Settings, from_environment
from workers.gpu.hardware.devices import detect_gpus
from workers.gpu.hardware.memory_estimate import estimate_memory

BEFORE_WORKERS, AFTER_WORKERS = (("api",), ("flower",)), (("chroma",), ("redis",))
# Chroma greets with a drawing and advertisements, and names the line of its source under every message.
CHROMA_NOISE = re.compile(r"\({3}|#{3}|[Cc]hroma Cloud|trychroma|--to-cloud|^\s+at rust/|^Connect to")
FLOWER_USER = "enginehouse"
# How often it is asked whether the workers wait in vain for the index.
INDEX_SECONDS = 2.0


@dataclass(frozen=True)
class Plan:
    """What will run, where. ``redis_port`` and ``chroma_port`` are None where the server is somebody else's."""

    settings: Settings
    redis_port: int | None
    chroma_port: int | None
    flower_port: int | None
    replicas: tuple[Replica, ...] = ()

    @property
    def stop_order(self) -> tuple[tuple[str, ...], ...]:
        return (*BEFORE_WORKERS, (*(replica.name for replica in self.replicas), "cpu", "io"), *AFTER_WORKERS)

    @property
    def api_url(self) -> str:
        return f"http://{bracketed(self.settings.host)}:{self.settings.port}"

    @property
    def flower_url(self) -> str | None:
        """With its login, for the person who started the stack."""
        if self.flower_port is None:
            return None
        return f"http://{FLOWER_USER}:{self.flower_password}@127.0.0.1:{self.flower_port}"

    @property
    def flower_password(self) -> str:
        return read_or_create_secret(self.settings.data_dir / "flower-password")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack until it is told to stop. Returns the exit status: 0 after a stop that was asked for, 2 when refused."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--guardian", type=int, required=True)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--own-redis", action="store_true")
    parser.add_argument("--own-chroma", action="store_true")
    parser.add_argument("--chroma-port", type=int, default=0)
    parser.add_argument("--flower", action="store_true")
    parser.add_argument("--flower-port", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        settings = from_environment(os.environ)
        with _data_folder_locked(settings.data_dir):
            return run(_plan(settings, options), guardian=options.guardian)
    except CommandError as refusal:
        print(refusal, file=sys.stderr)
    except SettingsError as error:
        print("\n".join(error.problems), file=sys.stderr)
    return 2


def run(plan: Plan, *, guardian: int) -> int:
    """Start everything, say when it is ready, keep it running until asked to stop, stop it."""
    log = ConsoleLog()
    supervisor = Supervisor(log, guardian_signal=GUARDIAN_GONE, on_change=lambda: _write_state(plan, supervisor, guardian))
    if os.getppid() != guardian:  # it died before its signal could reach a handler of ours
        return 1
    try:
        _start(plan, supervisor, log)
        if _wait_until_ready(plan, supervisor, log):
            log.say(f"Enginehouse is ready: {plan.api_url}")
            if plan.flower_url:
                log.say(f"Flower (queues and workers): {plan.flower_url}")
        notes = connect(plan.settings.redis_url, timeout=1.0, retries=0)
        while supervisor.shutdown_request is ShutdownRequest.NONE:
            supervisor.run_once(INDEX_SECONDS if plan.chroma_port else 3600)
            if plan.chroma_port and _index_is_unresponsive(notes):
                log.say("Chroma lives, but a request for a collection was not answered: it is started again")
                supervisor.kill_service("chroma")
        log.say(
            "Stopping; running jobs may go on for a while, a second Ctrl-C ends them at once."
            if supervisor.shutdown_request is ShutdownRequest.DRAIN
            else "Stopping at once."
        )
    finally:
        log.status("")
        supervisor.stop_services(plan.stop_order)
        _state_file(plan).unlink(missing_ok=True)
    log.say("Enginehouse has stopped.")
    return 0


def _plan(settings: Settings, options: argparse.Namespace) -> Plan:
    """Check all that can be checked before the first process starts, and choose the ports that were left open."""
    catalogue = load_catalogue(settings.models_file, engine=settings.engine)
    entries = models_to_load(catalogue, options.model or [name for name in [settings.worker_model] if name])
    if options.own_redis and not (settings.data_dir / "redis" / "appendonlydir").exists():
        refuse_open_address(settings, keys_possible=False)  # a new folder has no keys, so nothing needs to be started to know
    _refuse_taken(settings.host, settings.port, "--port")
    if not options.own_redis:
        for warning in check_redis(settings.redis_url, allow_unsafe=settings.allow_unsafe_redis):
            print(f"Warning: {warning}", file=sys.stderr)
    for port, option in ((options.chroma_port, "--chroma-port"), (options.flower_port, "--flower-port")):
        if port:
            _refuse_taken("127.0.0.1", port, option)
    redis_port = free_port() if options.own_redis else None
    chroma_port = (options.chroma_port or free_port()) if options.own_chroma else None
    flower_port = (options.flower_port or free_port(preferred=5555)) if options.flower else None
    if redis_port:
        settings = replace(settings, redis_url=redis_url(settings.data_dir / "redis", redis_port))
    if chroma_port:
        settings = replace(settings, chroma_url=f"http://127.0.0.1:{chroma_port}")
    replicas = place_models(entries, detect_gpus().read(), lambda entry: estimate_memory(entry, settings.prepared_models))
    return Plan(settings, redis_port, chroma_port, flower_port, tuple(replicas))


def _start(plan: Plan, supervisor: Supervisor, log: ConsoleLog) -> None:
    settings, environment = plan.settings, environment_of(plan.settings)
    for name in (name for names in plan.stop_order for name in names):
        log.announce(name)
    if plan.redis_port:
        supervisor.start_service(Service("redis", redis_command(settings.data_dir / "redis", plan.redis_port), environment))
        while supervisor.shutdown_request is ShutdownRequest.NONE and not is_answering(settings.redis_url):
            log.status("waiting for: Redis")
            supervisor.run_once(0.05)
    if supervisor.shutdown_request is not ShutdownRequest.NONE:
        return
    refuse_open_address(settings)
    if plan.chroma_port:
        command = chroma_command(settings.data_dir / "chroma", plan.chroma_port)
        quiet = environment | {"ANONYMIZED_TELEMETRY": "False", "NO_COLOR": "1", "RUST_LOG": "warn"}
        supervisor.start_service(Service("chroma", command, quiet, noise=CHROMA_NOISE))
    patience = settings.drain_seconds + 10
    assign_models(connect(settings.redis_url), plan.replicas)
    for replica in plan.replicas:
        supervisor.start_service(Service(replica.name, *_replica(replica, settings), grace=patience))
    for pool in ("cpu", "io"):
        supervisor.start_service(Service(pool, worker_command(pool, settings), environment, grace=patience))
    supervisor.start_service(Service("api", api_command(settings), environment))
    if plan.flower_port:
        login = {"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{plan.flower_password}"}
        supervisor.start_service(Service("flower", flower_command(plan.flower_port), environment | login, grace=5))


def _index_is_unresponsive(notes: redis.Redis) -> bool:
    try:
        return take_note(notes)
    except redis.RedisError:
        return False  # the workers see more of it than we do, and tell again


def _replica(replica: Replica, settings: Settings) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of one model worker."""
    devices = ",".join(map(str, replica.devices)) or settings.worker_device
    own = replace(settings, worker_model=replica.model, worker_empty=not replica.model, worker_device=devices)
    return worker_command("gpu", own, replica.number), environment_of(own)


def _wait_until_ready(plan: Plan, supervisor: Supervisor, log: ConsoleLog) -> bool:
    while supervisor.shutdown_request is ShutdownRequest.NONE:
        awaited = _missing_parts(plan.settings)
        log.status(f"waiting for: {', '.join(awaited)}" if awaited else "")
        if not awaited:
            return True
        supervisor.run_once(0.2)
    return False


def _missing_parts(settings: Settings) -> list[str]:
    """What the API says is missing; nothing when all is ready."""
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
    return [str(reason) for reason in body.get("waiting_for", [])] or [f"the API (it answers {answer.status})"]


@contextmanager
def _data_folder_locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it will hold other people's documents
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise CommandError(f"The data folder {folder} cannot be used ({error.strerror}): choose another with --data.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"Another Enginehouse runs on the data folder {folder}: stop it, or choose another folder with --data."
            ) from None
        yield


def _refuse_taken(host: str, port: int, option: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CommandError(
            f"Port {port} of {host} cannot be used ({error.strerror}): stop what listens there, or choose another with {option}."
        ) from None


def _state_file(plan: Plan) -> Path:
    return plan.settings.data_dir / "state.json"


def _write_state(plan: Plan, supervisor: Supervisor, guardian: int) -> None:
    """Addresses and process ids, for other commands and for people; readable by the owner only, as it has passwords."""
    state = {
        "pid": os.getpid(),
        "launcher_pid": guardian,
        "api": plan.api_url,
        "redis": plan.settings.redis_url,
        "chroma": plan.settings.chroma_url,
        "flower": plan.flower_url,
        "processes": supervisor.pids,
    }
    write_private(_state_file(plan), json.dumps(state, indent=2) + "\n")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # before a handler of ours was there
        sys.exit(main())
    sys.exit(128 + signal.SIGINT)
