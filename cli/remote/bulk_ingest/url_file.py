"""Files that ``enginehouse ingest --urls`` fetches: downloaded to a temporary file, sent, and deleted.

A server may redirect anywhere, so each hop is checked in the same way as webhooks: only public addresses, unless a range is allowed,
and no step from https to http.
"""

import http.client
import ssl
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from cli.errors import CommandError
from shared.webhooks.checked_connection import open_connection
from shared.webhooks.ssrf import AddressPolicy, AddressRefused, Target, Unresolved, parse

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 256 * 1024


class DownloadFailed(OSError):
    """A URL could not be fetched; the message says why."""


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of one download: bytes, and seconds for all of its hops."""

    size: int
    seconds: float


class Downloader:
    """Fetches URLs whose addresses the policy allows. Safe to use from many threads."""

    def __init__(self, policy: AddressPolicy, limits: DownloadLimits, *, trust: ssl.SSLContext | None = None) -> None:
        self._policy = policy
        self._limits = limits
        self._trust = trust or ssl.create_default_context()

    def download(self, url: str, target: Path) -> None:
        """Write what ``url`` returns to ``target``. Raises DownloadFailed."""
        deadline = time.monotonic() + self._limits.seconds
        try:
            for _ in range(MAX_REDIRECTS + 1):
                following = self._fetch(url, target, deadline)
                if following is None:
                    return
                if parse(url).secure and not parse(following).secure:
                    raise DownloadFailed("it redirects from https to http")
                url = following
        except (AddressRefused, Unresolved) as error:
            raise DownloadFailed(f"the address {error}" if isinstance(error, AddressRefused) else str(error)) from error
        except DownloadFailed:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = isinstance(error, TimeoutError) or time.monotonic() >= deadline
            reason = f"it took longer than {self._limits.seconds:g} s" if late else f"the download failed: {_reason(error)}"
            raise DownloadFailed(reason) from error
        raise DownloadFailed(f"it redirects more than {MAX_REDIRECTS} times")

    def _fetch(self, url: str, target: Path, deadline: float) -> str | None:
        """Write the answer, or return where it redirects to."""
        place = parse(url)
        with open_connection(self._policy, place, deadline, self._trust) as connection:
            connection.request("GET", place.path, headers={"Connection": "close", "Accept-Encoding": "identity"})
            with connection.getresponse() as response:
                if response.status in _REDIRECTS and (location := response.getheader("Location")):
                    return urljoin(url, location).partition("#")[0]
                if response.status != 200:
                    raise DownloadFailed(f"the server answered with status {response.status}")
                if (coding := response.getheader("Content-Encoding") or "identity") != "identity":
                    raise DownloadFailed(f"the answer is encoded as {coding[:40]!r}, which was not asked for")
                self._write(response, target)
                if time.monotonic() >= deadline:
                    # A connection that was closed in the middle looks like the end of an answer without a length.
                    raise TimeoutError("the deadline passed while the answer was read")
        return None

    def _write(self, response: http.client.HTTPResponse, target: Path) -> None:
        declared, size = response.length, 0
        with target.open("wb") as file:
            while piece := response.read(_PIECE):
                size += len(piece)
                if size > self._limits.size:
                    raise DownloadFailed(f"has more than {self._limits.size:,} bytes (--max-url-bytes)")
                file.write(piece)
        if declared is not None and size < declared:
            raise DownloadFailed(f"broke off after {size:,} of {declared:,} bytes")


@dataclass(frozen=True)
class UrlFile:
    """A file that is fetched when it is sent. Its name is the URL without its scheme."""

    name: str
    url: str
    downloader: Downloader

    @contextmanager
    def local(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="enginehouse-") as folder:
            target = Path(folder, "download")
            self.downloader.download(self.url, target)
            yield target


def url_files(lines: Iterable[str], downloader: Downloader, *, prefix: str = "") -> list[UrlFile]:
    """One file for each line with a URL. Empty lines and those that begin with # are left out. Raises CommandError for others."""
    files: dict[str, UrlFile] = {}
    for number, line in enumerate(lines, 1):
        url = line.strip().partition("#")[0].strip()
        if not url:
            continue
        try:
            place = parse(url)
        except AddressRefused as error:
            raise CommandError(f"Line {number} of --urls: the URL {error}.") from None
        files.setdefault(url, UrlFile(prefix + _name(place), url, downloader))
    return list(files.values())


def _name(place: Target) -> str:
    parts = urlsplit(place.path)
    path = unquote(parts.path, errors="replace")
    path = path + "index.html" if path.endswith("/") else path
    return f"{place.host}{path}{f'?{parts.query}' if parts.query else ''}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or 'the connection broke off'}"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
