"""Files fetched from URLs: each hop is checked, and size and time are limited."""

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from cli.errors import CommandError
from cli.remote.bulk_ingest.url_file import UrlFile, url_files
from shared.webhooks.ssrf import AddressPolicy, parse_networks
from workers.io.url_download import Downloader, DownloadFailed, DownloadLimits

LOOPBACK = parse_networks("127.0.0.0/8")


class Pages(http.server.BaseHTTPRequestHandler):
    """A web server with a page of each kind."""

    def do_GET(self) -> None:
        match self.path:
            case "/text":
                self.answer(200, b"Boats sail at noon.")
            case "/moved":
                self.answer(302, location="/text")
            case "/loop":
                self.answer(302, location="/loop")
            case "/inside":
                self.answer(301, location=f"http://10.1.2.3:{self.server.server_port}/text")  # type: ignore[attr-defined]
            case "/file":
                self.answer(302, location="file:///etc/passwd")
            case "/packed":
                self.answer(200, b"x", **{"Content-Encoding": "gzip"})
            case "/short":
                self.answer(200, b"half", **{"Content-Length": "100"})
            case "/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(100):
                    if self.server.stopping.wait(0.05):  # type: ignore[attr-defined]
                        break
                    self.wfile.write(b"x")
            case _:
                self.answer(404)

    def answer(self, status: int, body: bytes = b"", *, location: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers | ({"Location": location} if location else {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    served.stopping = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=served.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.stopping.set()  # type: ignore[attr-defined]
    served.shutdown()
    thread.join()
    served.server_close()


def fetch(downloader: Downloader, url: str) -> bytes:
    with UrlFile("name", url, downloader).local() as copy:
        return copy.read_bytes()


def downloader(*, size: int = 1000, seconds: float = 20, allowed: bool = True) -> Downloader:
    policy = AddressPolicy(LOOPBACK if allowed else (), setting="--allow-network")
    return Downloader(policy, DownloadLimits(size, seconds, "--max-url-bytes"))


@pytest.mark.parametrize("path", ["/text", "/moved"])
def test_a_file_is_fetched_and_its_copy_deleted(server: str, path: str) -> None:
    [file] = url_files([server + path], downloader())
    assert file.name == server.removeprefix("http://") + path
    with file.local() as copy:
        assert copy.read_bytes() == b"Boats sail at noon."
    assert not copy.parent.exists()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "status 404"),
        ("/loop", "redirects more than 5 times"),
        ("/inside", "10.1.2.3, which is not a public address; --allow-network"),
        ("/file", "must begin with http"),
        ("/packed", "encoded as 'gzip'"),
        ("/short", "broke off after 4 of 100 bytes"),
    ],
)
def test_what_cannot_be_fetched_says_why(server: str, path: str, reason: str) -> None:
    with pytest.raises(DownloadFailed) as failure:
        fetch(downloader(), server + path)
    assert reason in str(failure.value)


def test_private_addresses_are_refused_unless_they_are_allowed(server: str) -> None:
    for url in (server + "/text", "http://localhost/", "http://[::1]/", "http://169.254.169.254/latest/meta-data"):
        with pytest.raises(DownloadFailed) as failure:
            fetch(downloader(allowed=False), url)
        assert "not a public address" in str(failure.value)


def test_size_and_time_are_limited(server: str) -> None:
    with pytest.raises(DownloadFailed) as failure:
        fetch(downloader(size=5), server + "/text")
    assert "more than 5 bytes" in str(failure.value)
    started = time.monotonic()
    with pytest.raises(DownloadFailed) as failure:
        fetch(downloader(seconds=0.3), server + "/slow")
    assert "longer than 0.3 s" in str(failure.value)
    assert time.monotonic() - started < 4


def test_names_come_from_urls_and_lines_may_be_comments() -> None:
    lines = [
        "# manuals",
        "",
        "https://example.org/a%20b/guide.pdf?v=2  # the new one",
        "https://example.org/",
        "https://example.org/",
    ]
    assert [file.name for file in url_files(lines, downloader(), prefix="web/")] == [
        "web/example.org/a b/guide.pdf?v=2",
        "web/example.org/index.html",
    ]


@pytest.mark.parametrize("line", ["ftp://example.org/a", "http://user:secret@example.org/", "example.org", "http://0177.1/"])
def test_a_line_that_is_not_a_usable_url_is_named(line: str) -> None:
    with pytest.raises(CommandError) as failure:
        url_files(["https://example.org/a", line], downloader())
    assert str(failure.value).startswith("Line 2 of --urls: the URL ")
