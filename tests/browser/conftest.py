"""A browser on the web page of a real stack. In every test, the page must log no error and call no other origin."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from testing.missing_services import missing_service
from testing.repository import REPOSITORY
from testing.stack import QUICK, Stack, models

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
TOKEN_SECONDS = 0.006
MAX_TOKENS = 4000
# Of prompt and answer together, so that a job can run for a minute.
MAX_CONTEXT = 24_000

# A job may wait for a worker that is started by the first one of its kind, which takes long on a busy machine.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on the echo engine that is slow enough to be watched; a second model is loaded on demand."""
    stack = Stack(tmp_path_factory.mktemp("page"), token_seconds=TOKEN_SECONDS, environment=QUICK)
    entries = models(TOKEN_SECONDS)
    entries[0] |= {"max_tokens": MAX_TOKENS, "max_context": MAX_CONTEXT}
    entries.insert(1, {"name": "parrot", "url": "echo:0.001", "engine": "echo", "max_tokens": MAX_TOKENS})
    stack.models.write_text(json.dumps(entries))
    try:
        yield stack.start()
    finally:
        stack.kill()


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Chromium. While Playwright runs, so does its event loop, and tests of the same process cannot start theirs."""
    # The full browser also draws its own window, which takes three times the CPU.
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if chromium is None:
        missing_service("Chromium is not installed. On Debian: apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def browser_errors() -> list[str]:
    """Errors and warnings of the browser."""
    return []


@pytest.fixture
def provoked_errors() -> list[str]:
    """Patterns of the errors that a test provokes. They may come at any time, until the page is closed."""
    return []


@pytest.fixture
def context_options() -> dict[str, Any]:
    """Options of the browser context; a test of another screen replaces them."""
    return {"viewport": {"width": 1280, "height": 800}}


@pytest.fixture
def context(browser: Browser, stack: Stack, context_options: dict[str, Any]) -> Iterator[BrowserContext]:
    """A browser profile of its own, so that each test starts with empty storage."""
    context = browser.new_context(base_url=stack.url, reduced_motion="reduce", **context_options)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, stack: Stack, browser_errors: list[str], provoked_errors: list[str]) -> Iterator[Page]:
    page = context.new_page()
    foreign_requests: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        # The page polls /health/ready, which returns 503 while a worker is drained. Chromium logs that as an error.
        is_health_check = message.location["url"].endswith("/health/ready")
        if message.type in ("error", "warning") and not is_health_check:
            browser_errors.append(f"{message.text} {message.location['url']}")

    def on_request(url: str) -> None:
        if not url.startswith((f"{stack.url}/", "blob:")):
            foreign_requests.append(url)

    page.on("console", on_console)
    page.on("pageerror", lambda error: browser_errors.append(str(error)))
    page.on("request", lambda request: on_request(request.url))
    yield page
    page.close()
    assert foreign_requests == [], "the page calls only its own server"
    assert [error for error in browser_errors if not any(re.search(pattern, error) for pattern in provoked_errors)] == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The accessibility checker, from the development packages of the page."""
    script = Path(REPOSITORY) / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        missing_service("The packages of the page are not installed: make web")
    return script.read_text()
