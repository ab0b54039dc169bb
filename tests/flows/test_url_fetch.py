"""The server fetches pages and files itself: conditionally, within limits, and never from addresses that are not allowed."""

import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from enginehouse_client import Client
from testing.stack import Stack
from tests.flows.command import ends, run


class Pages(http.server.BaseHTTPRequestHandler):
    """A web server whose pages a test can change. It answers conditional requests."""

    def do_GET(self) -> None:
        pages: dict[str, tuple[int, dict[str, str], bytes]] = self.server.pages  # type: ignore[attr-defined]
        status, headers, body = pages.get(self.path, (404, {}, b""))
        asked = self.headers.get("If-None-Match")
        if asked is not None and asked == headers.get("ETag"):
            status, body = 304, b""
        self.server.answers.append((self.path, status))  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Site:
    def __init__(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.answers: list[tuple[str, int]] = []
        self._server.pages, self._server.answers = self.pages, self.answers  # type: ignore[attr-defined]
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def fetch(stack: Stack, collection: str, *urls: str, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The ended batch, and the ended fetch jobs."""
    answer = stack.post(f"/collections/{collection}/documents", {"urls": list(urls), **fields})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["data"], [each["url"] for each in body["fetches"]]) == ([], list(urls))
    return stack.ended(body["batch"]["id"]), [stack.ended(each["job"]) for each in body["fetches"]]


def test_pages_files_and_archives_are_fetched_and_searched(stack: Stack, site: Site) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("harbour.txt", "The harbour master is Ines.")
    site.pages |= {
        "/boats": (200, {"Content-Type": "text/html; charset=utf-8"}, b"<h1>Timetable</h1><p>Boats sail at noon.</p>"),
        "/old": (301, {"Location": "/boats"}, b""),
        "/notes": (200, {"Content-Type": "text/markdown"}, b"# Notes\n\nThe lock opens at six."),
        "/all.zip": (200, {}, archive.getvalue()),
    }
    urls = [site.url + path for path in ("/boats", "/notes", "/all.zip", "/gone")]
    batch, jobs = fetch(stack, "fetched", *urls, metadata={"from": "web"}, concurrency_key="web", concurrency_limit=4)
    assert batch["counts"] == {"total": 4, "completed": 3, "failed": 1, "cancelled": 0, "expired": 0}
    assert [job["result"] and job["result"]["status"] for job in jobs] == ["fetched", "fetched", "archive", None]
    assert (jobs[3]["error"]["code"], "status 404" in jobs[3]["error"]["message"]) == ("fetch_failed", True)
    # Each fetch, what it submitted, and the member of the archive.
    of_batch = stack.client.get("/jobs", params={"batch": batch["id"], "limit": 100}).json()["data"]
    kinds = sorted(job["kind"] for job in map(stack.job, (each["id"] for each in of_batch)) if job["concurrency_key"] == "web")
    assert kinds == ["fetch"] * 4 + ["ingest"] * 3 + ["unpack"]
    documents = {each["name"]: each for each in stack.client.get("/collections/fetched/documents").json()["data"]}
    page = documents[f"{site.host}/boats"]
    assert (page["status"], page["media_type"], page["url"], page["metadata"]) == ("ready", "text/html", urls[0], {"from": "web"})
    assert documents[f"{site.host}/notes"]["media_type"] == "text/markdown", "as its server declares"
    assert documents["harbour.txt"]["url"] is None
    [hit] = stack.post("/collections/fetched/search", {"query": "harbour master", "mode": "keyword", "top_k": 1}).json()["data"]
    assert "Ines" in hit["text"]
    _, [again] = fetch(stack, "fetched", f"{site.url}/old")
    assert (again["result"]["status"], again["result"]["document_id"]) == ("duplicate", page["id"])


def test_a_page_is_sent_again_only_if_it_has_changed(stack: Stack, site: Site) -> None:
    url = f"{site.url}/tides"
    site.pages["/tides"] = (200, {"ETag": '"1"'}, b"High tide is at nine.")
    _, [first] = fetch(stack, "tides", url)
    batch, [second] = fetch(stack, "tides", url)
    assert site.answers == [("/tides", 200), ("/tides", 304)]
    assert (second["result"]["status"], second["result"]["document_id"]) == ("unchanged", first["result"]["document_id"])
    assert batch["counts"]["total"] == 0
    site.pages["/tides"] = (200, {"ETag": '"2"'}, b"High tide is at ten.")
    _, [third] = fetch(stack, "tides", url)
    [document] = stack.client.get("/collections/tides/documents").json()["data"]
    assert (third["result"]["status"], document["id"], document["version"]) == ("fetched", third["result"]["document_id"], 2)
    site.pages["/tides"] = (200, {"ETag": '"3"'}, b"High tide is at eleven.")
    _, [kept] = fetch(stack, "tides", url, replace=False)
    assert (kept["result"]["status"], kept["result"]["document_id"]) == ("name_taken", document["id"])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "not a public address; ENGINEHOUSE_URL_ALLOW"),
        ("http://[fd00::1]/", "not a public address"),
        ("file:///etc/passwd", "must begin with http"),
        ("http://user:secret@example.org/", "must not contain a user name"),
    ],
)
def test_urls_that_must_not_be_called_are_refused_at_once(stack: Stack, url: str, reason: str) -> None:
    answer = stack.post("/collections/refused/documents", {"urls": ["https://example.org/", url]})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], reason in error["message"]) == (422, "urls.1", True), error
    assert stack.client.get("/collections/refused").status_code == 404, "nothing was written"


def test_a_document_says_which_other_one_has_the_same_words(stack: Stack, site: Site) -> None:
    site.pages |= {
        "/plain.txt": (200, {}, b"The mole is closed in winter."),
        "/page.html": (200, {}, b"<p>The mole is closed\nin winter."),
    }
    _, [first] = fetch(stack, "twins", f"{site.url}/plain.txt")
    first_id = stack.ended(first["result"]["job"])["result"]["document_id"]
    _, [second] = fetch(stack, "twins", f"{site.url}/page.html")
    stack.ended(second["result"]["job"])
    found = {each["id"]: each["same_text_as"] for each in stack.client.get("/collections/twins/documents").json()["data"]}
    assert found == {first_id: None, second["result"]["document_id"]: first_id}
    assert stack.client.delete(f"/documents/{first_id}?permanent=true").status_code == 200
    site.pages["/again.txt"] = (200, {}, b"The mole  is closed in winter.")
    _, [third] = fetch(stack, "twins", f"{site.url}/again.txt")
    stack.ended(third["result"]["job"])
    assert stack.client.get(f"/documents/{third['result']['document_id']}").json()["same_text_as"] is None, "that one is gone"


def test_each_hop_of_a_redirect_is_checked(stack: Stack, site: Site) -> None:
    site.pages["/inside"] = (302, {"Location": "http://10.1.2.3/secret"}, b"")
    _, [job] = fetch(stack, "hops", f"{site.url}/inside")
    assert (job["status"], job["error"]["code"], len(job["attempts"])) == ("failed", "fetch_failed", 1)
    assert "10.1.2.3, which is not a public address" in job["error"]["message"]


def test_a_repeated_request_fetches_once(stack: Stack, site: Site) -> None:
    site.pages["/once"] = (200, {}, b"Fetched once.")
    bodies = [
        stack.post("/collections/once/documents", {"urls": [f"{site.url}/once"]}, **{"Idempotency-Key": "one"}).json()
        for _ in range(2)
    ]
    assert bodies[0]["fetches"] == bodies[1]["fetches"]
    assert stack.ended(bodies[0]["batch"]["id"])["counts"]["completed"] == 1
    assert site.answers == [("/once", 200)]


def test_the_client_waits_for_what_the_server_fetches(stack: Stack, site: Site) -> None:
    site.pages["/one"] = (200, {}, b"The first page.")
    with Client(stack.url) as client:
        ingestion = client.ingest_urls("by-client", [f"{site.url}/one", f"{site.url}/none"])
        again = client.ingest_urls("by-client", [f"{site.url}/one"])
    assert [(document.name, document.status) for document in ingestion.documents] == [(f"{site.host}/one", "ready")]
    assert [(each.name, each.code) for each in ingestion.rejected] == [(f"{site.url}/none", "fetch_failed")]
    assert [document.id for document in again.documents] == [ingestion.documents[0].id]


def test_the_command_lets_the_server_fetch_urls(stack: Stack, site: Site) -> None:
    site.pages["/page"] = (200, {"ETag": '"1"'}, b"Read by the command.")
    urls = (f"{site.url}/page", f"{site.url}/missing")
    done = run(stack, "ingest", *urls, "-c", "by-command", "--json")
    assert ends(done) == {f"{site.host}/page": ("ready", False), f"{site.host}/missing": ("fetch_failed", False)}
    assert done.returncode == 3
    again = run(stack, "ingest", urls[0], "-c", "by-command", "--json")
    assert (ends(again), again.returncode) == ({f"{site.host}/page": ("ready", True)}, 0), again.stderr
