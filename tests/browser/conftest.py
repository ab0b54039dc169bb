"""A browser on the web page of a real stack. In every test, the page must log no error and call no other origin."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from testing.missing_services import missing_service
from testing.stack import Stack
from tests.flows.conftest import stack

__all__ = ["stack"]

# No sandbox, because tests run as root in containers, and none of the requests that a browser makes at start.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The first document waits until the embedding model is loaded, which takes long on a busy machine.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing_service("Chromium is not installed. On Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def browser_errors() -> list[str]:
    """Errors and warnings of the browser. A test that provokes some clears them."""
    return []


@pytest.fixture
def page(browser: Browser, stack: Stack, browser_errors: list[str]) -> Iterator[Page]:
    """A page with its own browser storage."""
    context = browser.new_context(base_url=stack.url)
    page = context.new_page()
    foreign_requests: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        # The page polls /health/ready, which returns 503 while a worker is suspended. Chromium logs that as an error.
        is_health_check = message.location["url"].endswith("/health/ready")
        if message.type in ("error", "warning") and not is_health_check:
            browser_errors.append(message.text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: browser_errors.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(f"{stack.url}/") else foreign_requests.append(request.url))
    yield page
    context.close()
    assert foreign_requests == [], "the page calls only its own server"
    assert browser_errors == []
