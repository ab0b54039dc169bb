"""One POST to an address that was checked, under one deadline for all of it. Follows no redirect, knows no proxy.

Knows nothing of deliveries.
"""

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from shared.webhooks.ssrf import AddressPolicy, AddressRefused, Target, Unresolved, parse

logger = logging.getLogger(__name__)

MOST_READ = 64 * 1024
KEPT = 1024
LONGEST_RETRY_AFTER = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back. ``status`` is None when nothing did, and ``error`` says why; ``answer`` is the beginning of the body."""

    status: int | None = None
    answer: str = ""
    retry_after: float = 0.0
    latency_ms: int = 0
    error: str = ""


class HttpSender:
    """Posts within ``seconds`` to whatever the guard lets through. Safe to use from many threads."""

    def __init__(self, guard: AddressPolicy, seconds: float, *, trust: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._seconds = seconds
        # Reading the certificates of the machine takes 20 ms, so it is done once.
        self._trust = trust or ssl.create_default_context()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send it. Every fault of the other side is a Reply."""
        started = time.monotonic()
        try:
            status, answer, retry_after = self._post(parse(url), body, headers, started + self._seconds)
        except (AddressRefused, Unresolved) as error:
            return Reply(error=f"the address {error}" if isinstance(error, AddressRefused) else str(error))
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = isinstance(error, TimeoutError) or time.monotonic() - started >= self._seconds
            why = f"not answered within {self._seconds:g} s" if late else _reason(error)
            return Reply(error=why, latency_ms=_since(started))
        return Reply(status=status, answer=answer, retry_after=retry_after, latency_ms=_since(started))

    def _post(self, target: Target, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, str, float]:
        with self._dial(target, deadline) as connected:
            # A socket's timeout starts anew with every byte; only the end of the connection stops one that drips.
            ending = threading.Timer(max(0.0, deadline - time.monotonic()), _end, [connected])
            ending.daemon = True
            ending.start()
            try:
                if isinstance(connected, ssl.SSLSocket):
                    connected.do_handshake()
                connection = http.client.HTTPConnection(target.host, target.port)
                # The name is never resolved again: the connection is there already.
                connection.sock = connected
                connection.auto_open = 0
                connection.default_port = 443 if target.secure else 80
                connection.request("POST", target.path, body, {**headers, "Connection": "close"})
                with connection.getresponse() as response:
                    if time.monotonic() >= deadline:
                        raise TimeoutError("headers that break off look like their end")
                    return response.status, _beginning(response), _retry_after(response.getheader("Retry-After"))
            finally:
                ending.cancel()

    def _dial(self, target: Target, deadline: float) -> socket.socket:
        """A connection to one of the checked addresses, the first that takes it; with TLS, whose handshake is still to come."""
        addresses = self._guard.addresses(target, deadline - time.monotonic())
        for left_over, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
            seconds = max(0.001, deadline - time.monotonic()) / (left_over + 1)
            try:
                # An address is taken as it is; only a name would be resolved.
                connected = socket.create_connection((address, target.port), timeout=seconds)
            except OSError:
                if not left_over:
                    raise
                continue
            connected.settimeout(max(0.001, deadline - time.monotonic()))
            if not target.secure:
                return connected
            # The certificate must be for the name that was asked for.
            name = target.host.removesuffix(".")
            return self._trust.wrap_socket(connected, server_hostname=name, do_handshake_on_connect=False)
        raise TimeoutError(f"no connection to {target.authority}")


def _end(connection: socket.socket) -> None:
    try:
        # Of the descriptor alone: TLS would first forget its state under the thread that reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        logger.debug("the connection had ended by itself")


def _beginning(response: http.client.HTTPResponse) -> str:
    """The first kilobyte of the body. More is read and dropped, up to a limit, so that the other side can end in order."""
    pieces, size = [], 0
    try:
        while size < MOST_READ and (piece := response.read1(MOST_READ - size)):
            pieces.append(piece)
            size += len(piece)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The status has been told, and it decides.
        logger.debug("the body of an answer broke off (%s)", error)
    return b"".join(pieces)[:KEPT].decode("utf-8", errors="replace")


def _retry_after(value: str | None) -> float:
    """Seconds to wait before the next try, as the other side wishes: it may send a number or a date."""
    if value is None:
        return 0.0
    try:
        if value.strip().isdecimal():
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), float(LONGEST_RETRY_AFTER))


def _reason(error: Exception) -> str:
    """In words, without what the other side may have put into it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the connection broke off'}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return {"RemoteDisconnected": "the connection was closed without an answer"}.get(
        type(error).__name__, f"the answer is not HTTP ({type(error).__name__})"
    )


def _since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)
