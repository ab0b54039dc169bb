"""Files that ``enginehouse ingest --urls`` fetches: downloaded to a temporary file, sent, and deleted."""

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
