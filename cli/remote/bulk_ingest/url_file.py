"""Files at URLs: those that the server fetches, and those that ``enginehouse ingest --urls`` downloads to a temporary file, sends and
deletes."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.errors import CommandError
from shared.webhooks.ssrf import AddressRefused, parse
from workers.io.url_download import Downloader

_PIECE = 256 * 1024


@dataclass(frozen=True)
class ServerUrl:
    """A file that the server fetches, under the URL without its scheme."""

    url: str

    @property
    def name(self) -> str:
        return parse(self.url).file_name


def split_urls(paths: Iterable[str]) -> tuple[list[ServerUrl], list[str]]:
    """The URLs among the arguments of a command, and the others. Raises CommandError for a URL that is not valid."""
    urls: dict[str, ServerUrl] = {}
    others: list[str] = []
    for text in paths:
        if not text.lower().startswith(("http://", "https://")):
            others.append(text)
            continue
        try:
            parse(text)
        except AddressRefused as error:
            raise CommandError(f"The URL {text[:200]} {error}.") from None
        urls.setdefault(text, ServerUrl(text))
    return list(urls.values()), others


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
            with self.downloader.open(self.url) as download, target.open("wb") as file:
                while piece := download.read(_PIECE):
                    file.write(piece)
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
        files.setdefault(url, UrlFile(prefix + place.file_name, url, downloader))
    return list(files.values())
