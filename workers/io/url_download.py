"""Downloads of files from URLs that clients name, within limits of size and time.

A server may redirect anywhere, so each hop is checked in the same way as the addresses of webhooks: only public addresses, unless a range
is allowed, and no step from https to http. The checked address is the one that is dialled.
"""

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin

from shared.webhooks.checked_connection import open_connection
from shared.webhooks.ssrf import AddressPolicy, AddressRefused, Unresolved, parse

MAX_REDIRECTS = 5
MAX_VALIDATOR_LENGTH = 512
_REDIRECTS = (301, 302, 303, 307, 308)
_NOT_MODIFIED = 304
# Statuses after which a later request may succeed.
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


class DownloadFailed(OSError):
    """A URL could not be fetched; the message says why. ``temporary``: a later attempt may succeed."""

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of one download: bytes, and seconds for all of its hops. ``size_option`` is what sets the first."""

    size: int
    seconds: float
    size_option: str


@dataclass(frozen=True)
class Validators:
    """What a server said about the version of a file that it sent: ETag and Last-Modified, "" where it said nothing."""

    etag: str = ""
    last_modified: str = ""

    def as_headers(self) -> dict[str, str]:
        """The headers of a request for the file unless it is still this version."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


class Download:
    """An answer: a file that is still to be read, or, if ``unchanged``, that the server has no newer version."""

    def __init__(
        self, response: http.client.HTTPResponse, limits: DownloadLimits, deadline: float, on_read: Callable[[int, int], None]
    ) -> None:
        self._response = response
        self._limits = limits
        self._deadline = deadline
        self._on_read = on_read
        self._declared = response.length or 0
        self.size = 0
        self.unchanged = response.status == _NOT_MODIFIED
        self.content_type = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        self.validators = Validators(_validator(response, "ETag"), _validator(response, "Last-Modified"))

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most ``size``; none at the end. Raises DownloadFailed."""
        with _network_errors(self._limits, self._deadline):
            piece = self._response.read1(size)
            if not piece and time.monotonic() >= self._deadline:
                # A connection that was closed in the middle looks like the end of an answer without a length.
                raise TimeoutError("the deadline passed while the answer was read")
        self.size += len(piece)
        if max(self.size, self._declared) > self._limits.size:
            raise DownloadFailed(f"it has more than {self._limits.size:,} bytes ({self._limits.size_option})")
        if not piece and self.size < self._declared:
            raise DownloadFailed(f"it broke off after {self.size:,} of {self._declared:,} bytes", temporary=True)
        self._on_read(self.size, self._declared)
        return piece


class Downloader:
    """Fetches URLs whose addresses the policy allows. Safe to use from many threads."""

    def __init__(self, policy: AddressPolicy, limits: DownloadLimits, *, trust: ssl.SSLContext | None = None) -> None:
        self._policy = policy
        self._limits = limits
        self._trust = trust or ssl.create_default_context()

    @contextmanager
    def open(
        self, url: str, known: Validators | None = None, *, on_read: Callable[[int, int], None] = lambda size, total: None
    ) -> Iterator[Download]:
        """The answer of ``url``, after redirects, for the length of a ``with`` block. ``known`` is the version that the caller has.

        ``on_read`` receives the bytes that were read, and all of them, 0 if the server did not say. Raises DownloadFailed.
        """
        deadline = time.monotonic() + self._limits.seconds
        headers = {"Connection": "close", "Accept-Encoding": "identity", "User-Agent": "Enginehouse"}
        headers |= known.as_headers() if known is not None else {}
        for _ in range(MAX_REDIRECTS + 1):
            with ExitStack() as stack:
                with _network_errors(self._limits, deadline):
                    target = parse(url)
                    connection = stack.enter_context(open_connection(self._policy, target, deadline, self._trust))
                    connection.request("GET", target.path, headers=headers)
                    response = stack.enter_context(connection.getresponse())
                    if time.monotonic() >= deadline:
                        # Headers that broke off look like complete ones.
                        raise TimeoutError("the deadline passed while the headers were read")
                    following = _redirect_of(url, response)
                    if following is not None and target.secure and not parse(following).secure:
                        raise DownloadFailed("it redirects from https to http")
                if following is None:
                    _check_answer(response, known)
                    yield Download(response, self._limits, deadline, on_read)
                    return
            url = following
        raise DownloadFailed(f"it redirects more than {MAX_REDIRECTS} times")


@contextmanager
def _network_errors(limits: DownloadLimits, deadline: float) -> Iterator[None]:
    """Raise DownloadFailed for what goes wrong between here and the server."""
    try:
        yield
    except DownloadFailed:
        raise
    except (AddressRefused, Unresolved) as error:
        refused = isinstance(error, AddressRefused)
        temporary = isinstance(error, Unresolved) and not error.unknown
        raise DownloadFailed(f"the address {error}" if refused else str(error), temporary=temporary) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = isinstance(error, TimeoutError) or time.monotonic() >= deadline
        reason = f"it took longer than {limits.seconds:g} s" if late else f"the download failed: {_reason(error)}"
        raise DownloadFailed(reason, temporary=not isinstance(error, (ssl.SSLCertVerificationError, ValueError))) from error


def _redirect_of(url: str, response: http.client.HTTPResponse) -> str | None:
    """Where an answer redirects to, or None."""
    location = response.getheader("Location") if response.status in _REDIRECTS else None
    return urljoin(url, location).partition("#")[0] if location else None


def _check_answer(response: http.client.HTTPResponse, known: Validators | None) -> None:
    """Raise DownloadFailed unless the answer has the file, or says that the caller has it."""
    if response.status == _NOT_MODIFIED and known is not None and known.as_headers():
        return
    if response.status != 200:
        raise DownloadFailed(f"the server answered with status {response.status}", temporary=response.status in _TEMPORARY)
    if (coding := response.getheader("Content-Encoding") or "identity") != "identity":
        raise DownloadFailed(f"the answer is encoded as {coding[:40]!r}, which was not asked for")


def _validator(response: http.client.HTTPResponse, name: str) -> str:
    """A header that the server is sent back later; "" if it would be no valid header."""
    value = (response.getheader(name) or "").strip()
    return value if value.isascii() and value.isprintable() and len(value) <= MAX_VALIDATOR_LENGTH else ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or 'the connection broke off'}"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
