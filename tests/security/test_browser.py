"""The web page and pages of other sites in a browser."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from testing.stack import Stack
from tests.browser.conftest import browser_errors, context, context_options, page, provoked_errors, running_browser

__all__ = ["browser_errors", "context", "context_options", "page", "provoked_errors"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # One that is imported would run until the end of the session.
    with running_browser() as browser:
        yield browser


class OtherSite(http.server.BaseHTTPRequestHandler):
    """A page with forms that send requests to the server."""

    target = ""

    def do_GET(self) -> None:
        # A frame for each form: what one frame shows can end the next navigation of the same frame.
        form = "<iframe name={0}></iframe><form id={0} target={0} method=post action='{1}{2}' enctype='{3}'>{4}</form>"
        content = "".join(
            (
                form.format("upload", self.target, "/upload", "multipart/form-data", "<textarea name=file>x</textarea>"),
                form.format("text", self.target, "/generate", "text/plain", """<input name='{"prompt":"' value='"}'>"""),
                form.format("batch", self.target, "/batches", "application/x-www-form-urlencoded", ""),
            )
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def other_site(stack: Stack) -> Iterator[str]:
    OtherSite.target = stack.url
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OtherSite)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()


@pytest.mark.parametrize(
    "path",
    ["/#constructor", "/ui/chat/toString", "/ui/jobs/constructor", "/ui/documents/__proto__", "/ui/jobs/%3Cscript%3E%2F..%2Fx"],
)
def test_an_address_that_names_nothing_shows_a_view(page: Page, path: str, provoked_errors: list[str]) -> None:
    provoked_errors.append("status of 404")
    page.goto(path, wait_until="networkidle")
    expect(page.locator("main")).to_be_visible()
    assert page.title().endswith("· Enginehouse")
    # The browser logs the 404 of what is not there.


def test_a_page_of_another_site_cannot_call_the_server(browser: Browser, stack: Stack, other_site: str) -> None:
    def objects() -> tuple[int, int]:
        return len(stack.client.get("/jobs?limit=100").json()["data"]), len(stack.client.get("/collections").json()["data"])

    before, statuses = objects(), []
    foreign = browser.new_page()
    foreign.on("response", lambda answer: statuses.append(answer.status) if answer.url.startswith(stack.url) else None)
    foreign.goto(other_site)
    for form in ("upload", "text", "batch"):
        with foreign.expect_response(lambda answer: answer.url.startswith(stack.url)):
            foreign.evaluate(f"document.getElementById('{form}').submit()")
    results = foreign.evaluate(
        """async (server) => {
          const results = {};
          for (const [name, path, options] of [
            ["no-cors", "/batches", { method: "POST", mode: "no-cors" }],
            ["text", "/generate", { method: "POST", mode: "no-cors", body: '{"prompt": "x"}' }],
            ["read", "/jobs", {}],
            ["delete", "/jobs/x", { method: "DELETE" }],
          ]) {
            try { results[name] = (await fetch(server + path, options)).type; } catch { results[name] = "blocked"; }
          }
          navigator.sendBeacon(server + "/batches", "");
          return results;
        }""",
        stack.url,
    )
    foreign.close()
    assert {"blocked", "opaque"} >= set(results.values())
    assert results["read"] == results["delete"] == "blocked"
    assert set(statuses) <= {400, 403}
    assert objects() == before
