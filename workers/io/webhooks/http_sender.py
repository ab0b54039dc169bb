"""HTTP sender: one POST to a checked address, under one deadline for all of it. It follows no redirect and uses no proxy."""

import http.client
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from shared.webhooks.checked_connection import open_connection
from shared.webhooks.ssrf import AddressPolicy, AddressRefused, Target, Unresolved, parse

logger = logging.getLogger(__name__)

# Of an answer's body: how much is read, and how much of that is kept.
MAX_READ_BYTES = 64 * 1024
MAX_KEPT_BYTES = 1024
MAX_RETRY_AFTER_SECONDS = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer to a POST. ``status`` is None if there was none, and ``error`` says why; ``answer`` is the start of the body."""

    status: int | None = None
    answer: str = ""
    retry_after: float = 0.0
    latency_ms: int = 0
    error: str = ""


class HttpSender:
    """Sends requests that end within ``seconds``, to addresses that the policy allows. Safe to use from many threads."""

    def __init__(self, policy: AddressPolicy, seconds: float, *, trust: ssl.SSLContext | None = None) -> None:
        self._policy = policy
        self._seconds = seconds
        # Loading the system's certificates takes 20 ms, so it happens once.
        self._trust = trust or ssl.create_default_context()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send one request. Every failure of the receiver is returned as a Reply."""
        started = time.monotonic()
        try:
            status, answer, retry_after = self._post(parse(url), body, headers, started + self._seconds)
        except (AddressRefused, Unresolved) as error:
            return Reply(error=f"the address {error}" if isinstance(error, AddressRefused) else str(error))
        except (OSError, http.client.HTTPException, ValueError) as error:
            is_late = isinstance(error, TimeoutError) or time.monotonic() - started >= self._seconds
            reason = f"not answered within {self._seconds:g} s" if is_late else _reason(error)
            return Reply(error=reason, latency_ms=_since(started))
        return Reply(status=status, answer=answer, retry_after=retry_after, latency_ms=_since(started))

    def _post(self, target: Target, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, str, float]:
        with open_connection(self._policy, target, deadline, self._trust) as connection:
            connection.request("POST", target.path, body, {**headers, "Connection": "close"})
            with connection.getresponse() as response:
                if time.monotonic() >= deadline:
                    # Headers that broke off look like complete ones.
                    raise TimeoutError("the deadline passed while the headers were read")
                return response.status, _read_start(response), _retry_after(response.getheader("Retry-After"))


def _read_start(response: http.client.HTTPResponse) -> str:
    """The first kilobyte of the body. More is read and dropped, up to a limit, so that the receiver can finish sending."""
    pieces, size = [], 0
    try:
        while size < MAX_READ_BYTES and (piece := response.read1(MAX_READ_BYTES - size)):
            pieces.append(piece)
            size += len(piece)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The status has arrived, and it decides.
        logger.debug("the body of an answer broke off (%s)", error)
    return b"".join(pieces)[:MAX_KEPT_BYTES].decode("utf-8", errors="replace")


def _retry_after(value: str | None) -> float:
    """Seconds that the receiver asks to wait before the next attempt. The header has a number or a date."""
    if value is None:
        return 0.0
    try:
        if value.strip().isdecimal():
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), float(MAX_RETRY_AFTER_SECONDS))


def _reason(error: Exception) -> str:
    """A description of the error without text that the receiver could have put into it."""
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
