"""gunicorn's thread worker, protected against slow clients (``--worker-class api.gunicorn_worker.GuardedWorker``).

gunicorn gives a connection to a thread as soon as it is accepted, and the thread waits for the client. Here the main thread reads
the header of each request without blocking, and a thread only sees requests whose header is complete. So a connection that sends
nothing, or half a header, costs a descriptor and no thread; each address may have a limited number of them, and newer ones replace
older ones. Bodies have a time limit that grows with the bytes received, responses one for each piece. A connection whose request was
answered before its body was read is closed. No address but loopback may occupy more threads than are free.

The base class is internal to gunicorn, so its version is pinned; tests/security/test_slow_clients.py tests what is relied on.
"""

import errno
import ipaddress
import json
import os
import selectors
import socket
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn import util
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from shared.errors import EnginehouseError, InternalError, InvalidRequest, RequestTimeout, Unavailable
from shared.machine import is_loopback
from shared.process_exit import exit_now
from shared.settings_sources import from_environment

HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 64 * 1024
HEAD_TOO_LARGE = (431, "Request Header Fields Too Large", f"The header of the request is larger than {MAX_HEAD_BYTES} bytes.")
HEAD_TOO_SLOW = (408, "Request Timeout", "The header of the request did not arrive in time.")
ADDRESS_BUSY = (503, "Service Unavailable", "Requests of your address occupy all threads that are free. Retry in a moment.")
ERRORS: Mapping[int, type[EnginehouseError]] = {408: RequestTimeout, 500: InternalError, 503: Unavailable}
READ_BYTES = 16 * 1024
# A body may arrive as slowly as this once its first seconds are over; a response piece must be taken within SEND_SECONDS.
MIN_BYTES_PER_SECOND = 1000
SEND_SECONDS = 60.0
# After the last response of a connection, what the client still sends is discarded for this long, so that it can read the response.
LINGER_SECONDS = 2.0
LINGER_BYTES = 32 * 1024 * 1024
# When the process stops, a connection without a request stays open for this long, for a request that is on its way.
IDLE_STOP_SECONDS = 0.5
STOP_SWEEP_SECONDS = 0.1
SWEEP_SECONDS = 0.5
DESCRIPTOR_PAUSE_SECONDS = 0.01

StartResponse = Callable[..., Any]


class RequestTooSlow(NoMoreData):  # type: ignore[misc]
    """The client sends its request too slowly. gunicorn closes the connection; werkzeug reports a disconnected client."""


class BodyReader(SocketUnreader):  # type: ignore[misc]
    """Reads bodies from a socket within a time limit: some seconds, and one more for each 1000 bytes received."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        super().__init__(sock)
        self._seconds = seconds
        self._deadline = 0.0

    def start_request(self) -> None:
        """Restart the clock."""
        self._deadline = time.monotonic() + self._seconds

    def chunk(self, size_hint: int | None = None) -> bytes:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise RequestTooSlow
        set_timeout(self.sock, socket.SO_RCVTIMEO, remaining)
        try:
            data: bytes = super().chunk(size_hint)
        except BlockingIOError:
            raise RequestTooSlow from None
        self._deadline += len(data) / MIN_BYTES_PER_SECOND
        return data


class Connection(TConn):  # type: ignore[misc]
    """A connection, with the part of the next request's header that has arrived."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, body_seconds: float) -> None:
        super().__init__(cfg, sock, client, server)
        self.address = address_group(client[0])
        self.head = bytearray()
        self.deadline = 0.0
        self.data_ready = True
        self._body_seconds = body_seconds

    def receive(self, data: bytes) -> bool:
        """Keep received bytes; returns whether the header of the next request is complete."""
        start = max(0, len(self.head) - len(HEAD_END) + 1)
        self.head += data
        return self.head.find(HEAD_END, start) >= 0

    def has_unread_bytes(self) -> bool:
        """Whether bytes have arrived that ``receive`` has not seen."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def start_request(self) -> None:
        """Hand the received bytes to the parser."""
        if not self.initialized:
            set_timeout(self.sock, socket.SO_SNDTIMEO, SEND_SECONDS)
            self.init()
            self.parser.unreader = BodyReader(self.sock, self._body_seconds)
        self.parser.unreader.start_request()
        self.parser.unreader.unread(bytes(self.head))
        self.head.clear()


class WaitingConnections:
    """Connections that have not sent a complete header, by address and in the order of their arrival."""

    def __init__(self) -> None:
        self._by_address: dict[str, OrderedDict[Connection, None]] = {}

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._by_address.get(connection.address, ())

    def add(self, connection: Connection) -> None:
        self._by_address.setdefault(connection.address, OrderedDict())[connection] = None

    def remove(self, connection: Connection) -> None:
        found = self._by_address.get(connection.address, OrderedDict())
        found.pop(connection, None)
        if not found:
            self._by_address.pop(connection.address, None)

    def count(self, address: str) -> int:
        return len(self._by_address.get(address, ()))

    def oldest(self, address: str | None = None) -> Connection | None:
        """The oldest connection of an address, by default of the one that has most.

        None if there is no connection but those whose next bytes have arrived: closing one would lose a request that is on its way.
        """
        found = self._by_address.get(address) if address is not None else max(self._by_address.values(), key=len, default=None)
        return next((connection for connection in found or () if not connection.has_unread_bytes()), None)

    def all(self) -> list[Connection]:
        return [connection for found in self._by_address.values() for connection in found]


class GuardedWorker(ThreadWorker):  # type: ignore[misc]
    """A thread worker whose threads never wait for a header."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._settings = from_environment(os.environ)
        self._waiting = WaitingConnections()
        self._lingering: dict[Connection, float] = {}
        self._running: Counter[str] = Counter()
        self._swept_at = 0.0

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Callable[..., Iterable[bytes]] = close_after_unread_body(self.wsgi)

    def run(self) -> None:
        super().run()
        exit_now()

    # The main thread, from a new connection to a complete header.

    def accept(self, listener: socket.socket) -> None:
        try:
            sock, client = listener.accept()
        except OSError as error:  # the client has gone, another process was faster, or no descriptor is free
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._drop_oldest()
                time.sleep(DESCRIPTOR_PAUSE_SECONDS)
            return
        self.nr_conns += 1
        connection = Connection(self.cfg, sock, client, listener.getsockname(), self._settings.body_seconds)
        if self._waiting.count(connection.address) >= self._settings.max_idle_connections:
            self._drop(self._waiting.oldest(connection.address))
        elif self.nr_conns >= self.worker_connections:
            self._drop_oldest()
        self._await_head(connection, self._settings.header_seconds)

    def _await_head(self, connection: Connection, seconds: float) -> None:
        connection.deadline = time.monotonic() + seconds
        connection.sock.setblocking(False)
        self._waiting.add(connection)
        self.poller.register(connection.sock, selectors.EVENT_READ, partial(self._read_head, connection))

    def _read_head(self, connection: Connection, _: Any) -> None:
        if connection not in self._waiting:  # dropped by an event of the same round
            return
        try:
            data = connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        if not connection.head:
            # A kept connection was idle until now; its next request starts here.
            connection.deadline = max(connection.deadline, time.monotonic() + self._settings.header_seconds)
        if connection.receive(data):
            self._stop_waiting(connection)
            self._start_request(connection)
        elif len(connection.head) > MAX_HEAD_BYTES:
            self._stop_waiting(connection)
            self._refuse(connection, HEAD_TOO_LARGE)

    def _start_request(self, connection: Connection) -> None:
        running = self._running.get(connection.address, 0)
        # Calls through a proxy on this machine have its address; the proxy limits the addresses behind it.
        if running > self.cfg.threads - self._running.total() and not is_loopback(connection.address):
            self._refuse(connection, ADDRESS_BUSY)
            return
        self._running[connection.address] = running + 1
        connection.start_request()
        self.enqueue_req(connection)

    def _refuse(self, connection: Connection, refusal: tuple[int, str, str]) -> None:
        with suppress(OSError):
            connection.sock.send(error_page(*refusal))
        self._linger(connection)

    def _end_wait(self, connection: Connection) -> None:
        """Close a connection whose header did not arrive in time. One without a request has nothing to be answered."""
        if connection.head and self.alive:
            self._stop_waiting(connection)
            self._refuse(connection, HEAD_TOO_SLOW)
        else:
            self._drop(connection)

    def _stop_waiting(self, connection: Connection) -> None:
        self._waiting.remove(connection)
        self.poller.unregister(connection.sock)

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            self._stop_waiting(connection)
            self._close(connection)

    def _drop_oldest(self) -> None:
        """Make room for a new connection, if any has no request in progress."""
        oldest = self._waiting.oldest()
        if oldest is not None:
            self._drop(oldest)
        elif self._lingering:
            self._end_linger(next(iter(self._lingering)))

    def _close(self, connection: Connection) -> None:
        self.nr_conns -= 1
        connection.close()

    # The main thread, after a response.

    def finish_request(self, conn: Connection, fs: Any) -> None:
        """Wait for the next request on the connection, or close it without blocking."""
        self._running[conn.address] -= 1
        if not self._running[conn.address]:
            del self._running[conn.address]
        try:
            if fs.cancelled() or not fs.result():
                self._linger(conn)
                return
            if conn.receive(conn.parser.unreader.take_buffered()):
                self._start_request(conn)
            else:
                self._await_head(conn, self.cfg.keepalive)
        except Exception:
            self.log.exception("A connection failed after its response")
            self._close(conn)

    def _linger(self, connection: Connection) -> None:
        """Close the connection once the client has closed it too; closing at once could destroy the response on its way."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
            connection.sock.setblocking(False)
            self.poller.register(connection.sock, selectors.EVENT_READ, partial(self._discard, connection, [LINGER_BYTES]))
        except (OSError, ValueError):
            self._close(connection)
        else:
            self._lingering[connection] = time.monotonic() + LINGER_SECONDS

    def _discard(self, connection: Connection, budget: list[int], _: Any) -> None:
        if connection not in self._lingering:  # closed by an event of the same round
            return
        try:
            received = len(connection.sock.recv(READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        budget[0] -= received
        if not received or budget[0] <= 0:
            self._end_linger(connection)

    def _end_linger(self, connection: Connection) -> None:
        self._lingering.pop(connection, None)
        self.poller.unregister(connection.sock)
        self._close(connection)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events. A process that stops looks at its deadlines sooner than gunicorn, which does not know these connections."""
        super().wait_for_and_dispatch_events(timeout if self.alive else min(timeout, STOP_SWEEP_SECONDS))

    def murder_pending(self) -> None:
        """Close connections whose time is over. The main loop calls this after each round of events."""
        now = time.monotonic()
        if now < self._swept_at + (SWEEP_SECONDS if self.alive else STOP_SWEEP_SECONDS):
            return
        self._swept_at = now
        for connection in self._waiting.all():
            if not self.alive:
                seconds = LINGER_SECONDS if connection.head else IDLE_STOP_SECONDS
                connection.deadline = min(connection.deadline, now + seconds)
            # The next request of a kept connection may have arrived just now.
            if connection.deadline <= now and (connection.head or not connection.has_unread_bytes()):
                self._end_wait(connection)
        for connection in [connection for connection, deadline in self._lingering.items() if deadline <= now]:
            self._end_linger(connection)

    # A thread of the pool.

    def handle_request(self, req: Any, conn: Connection) -> bool:
        try:
            return bool(super().handle_request(req, conn))
        except BlockingIOError as error:
            # The client does not read its response. gunicorn would log an error; this one it ignores.
            raise ConnectionResetError(errno.ECONNRESET, "the client does not read its response") from error

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Whether the connection can be used again. Unread bodies are not read: a thread would wait for the client."""
        return bool(keepalive) and not has_unread_body(conn.parser.mesg.body)


def error_page(status: int, reason: str, message: str) -> bytes:
    """A whole response for a request that did not reach the application: the JSON of an error, as the application sends it."""
    body = json.dumps({"error": ERRORS.get(status, InvalidRequest)(message or reason).as_json()}).encode()
    headers = ["Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    if status == Unavailable.status:
        headers.append("Retry-After: 1")
    return "\r\n".join([f"HTTP/1.1 {status} {reason}", *headers, "", ""]).encode() + body


def send_error_page(sock: socket.socket, status: int, reason: str, message: str) -> None:
    """What gunicorn calls to refuse a request that it could not parse. Its own page is HTML."""
    util.write_nonblock(sock, error_page(status, reason, message))


util.write_error = send_error_page


def address_group(host: str) -> str:
    """The address, or the first half of an IPv6 address: a network assigns the other half, so one client has all of them."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and not address.ipv4_mapped and not address.is_loopback:
        return f"{address.exploded[:19]}::"
    return host


def close_after_unread_body(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Announce in the response that the connection closes if the application has not read the body, as after a refusal."""

    def call(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if has_unread_body(environ["wsgi.input"]):
                # gunicorn passes the method of its response, and drops a Connection header.
                start_response.__self__.force_close()  # type: ignore[attr-defined]
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return call


def set_timeout(sock: socket.socket, option: int, seconds: float) -> None:
    """Limit each blocking call on a socket. Unlike ``settimeout``, this needs no further system call for each of them."""
    whole = int(seconds)
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, max(1, int((seconds - whole) * 1_000_000))))


def has_unread_body(body: Any) -> bool:
    """Whether bytes of a request's body have not been received."""
    reader = body.reader
    if isinstance(reader, LengthReader):
        return bool(body.failed or reader.length > 0)
    return isinstance(reader, ChunkedReader) and bool(body.failed or reader.parser)
