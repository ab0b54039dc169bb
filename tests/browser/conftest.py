"""A real browser before the page of a real stack; whatever a test does, the page must not err nor leave its origin."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from testing.stack import Stack
from tests.conftest import missing_service
from tests.flows.conftest import stack

__all__ = ["stack"]

# Without a sandbox, as tests run as root in containers; and without what a browser asks of the world at its start.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The first document waits for the embedding model to load, on a busy machine for some time.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing_service("there is no Chromium; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def faults() -> list[str]:
    """What the browser complained of; a test that provokes complaints clears them."""
    return []


@pytest.fixture
def page(browser: Browser, stack: Stack, faults: list[str]) -> Iterator[Page]:
    """A visitor with a memory of their own."""
    context = browser.new_context(base_url=stack.url)
    page = context.new_page()
    strangers: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(f"{stack.url}/") else strangers.append(request.url))
    yield page
    context.close()
    assert strangers == [], "the page asks nobody but its own server"
    assert faults == []
