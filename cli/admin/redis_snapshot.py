"""Snapshot of Redis over the network: the dump that Redis sends to a replica, which it makes at one moment while it goes on serving.

It needs a user that may run SYNC, such as ``default``, and no access to the files of the server.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from cli.errors import CommandError

CONNECT_SECONDS = 5.0
SNAPSHOT_SECONDS = 600.0
"""Longest silence. Redis sends a line break every few seconds while it writes the dump."""

BLOCK = 1024 * 1024
BASE, INCREMENT, MANIFEST = "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof", "appendonly.aof.manifest"


def save_snapshot(url: str, folder: Path) -> int:
    """Write a snapshot into ``folder`` in the form of an append-only file; return its size in bytes.

    A Redis that finds the folder as its ``appendonlydir`` starts with this data. Raises CommandError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with closing(_connect(url)) as connection, (folder / BASE).open("wb") as target:
            stream = connection.makefile("rb")
            size = _snapshot_size(_ask(connection, stream, url))
            left = size
            while left:
                block = stream.read(min(BLOCK, left))
                if not block:
                    raise CommandError("Redis closed the connection in the middle of its snapshot. Try again.")
                target.write(block)
                left -= len(block)
    except (OSError, ValueError) as error:
        raise CommandError(f"The snapshot of Redis failed ({error}).") from None
    (folder / INCREMENT).write_bytes(b"")
    (folder / MANIFEST).write_text(f"file {BASE} seq 1 type b\nfile {INCREMENT} seq 1 type i\n")
    return size


def _connect(url: str) -> socket.socket:
    address = urlsplit(url)
    if address.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SNAPSHOT_SECONDS)
        connection.connect(address.path)
        return connection
    connection = socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379), CONNECT_SECONDS)
    connection.settimeout(SNAPSHOT_SECONDS)
    if address.scheme == "rediss":
        return _tls_context(dict(parse_qsl(address.query))).wrap_socket(connection, server_hostname=address.hostname)
    return connection


def _tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """As redis-py does with these options of a URL."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context


def _ask(connection: socket.socket, stream: Iterator[bytes], url: str) -> bytes:
    """Log in and ask for a snapshot; return the line that announces it."""
    address = urlsplit(url)
    if address.password:
        _send(connection, "AUTH", unquote(address.username or "default"), unquote(address.password))
        _raise_if_refused(next(stream, b""))
    _send(connection, "SYNC")
    line = b"\n"
    while line == b"\n":  # Redis is still writing it
        line = next(stream, b"")
    _raise_if_refused(line)
    return line


def _snapshot_size(line: bytes) -> int:
    if not line.startswith(b"$"):
        raise CommandError(f"Redis answered {line[:80]!r} when it was asked for a snapshot.")
    return int(line[1:])


def _send(connection: socket.socket, *words: str) -> None:
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
    connection.sendall(b"*%d\r\n%s" % (len(words), parts))


def _raise_if_refused(line: bytes) -> None:
    if line.startswith(b"-"):
        raise CommandError(
            f"Redis refused a snapshot ({line[1:].decode(errors='replace').strip()}). Use the login of the user `default`, in REDIS_URL or "
            "with --redis."
        )
    if not line:
        raise CommandError("Redis closed the connection before it sent a snapshot.")
