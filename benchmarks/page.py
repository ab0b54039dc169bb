"""The web page in Chromium: the first load on a slow line, what an open view transfers, and frames while long lists scroll.

The line has 1.6 Mbit/s and a round trip of 150 ms, emulated by the browser. The jobs ran on the echo engine. Run:
``.venv/bin/python -m benchmarks.page``.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, CDPSession, Page, expect, sync_playwright

from benchmarks.figures import figure, percentile
from testing.stack import Stack, models
from testing.waiting import wait_until

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
LINE = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 7.5e5 / 8}
IDLE_SECONDS = 60
VIEWS = {
    "chat": "/",
    "documents": "/ui/documents/bench",
    "jobs": "/ui/jobs",
    "operations": "/ui/operations",
    "webhooks": "/ui/webhooks",
}
FILES_PER_UPLOAD = 100
SENDERS = 8

# Keeps the largest paint and the sum of unexpected shifts. A paint is reported soon after its frame.
OBSERVE = """() => {
  window.seen = { paint: 0, shift: 0 };
  new PerformanceObserver((list) => (seen.paint = list.getEntries().at(-1).startTime)).observe({ type: "largest-contentful-paint", buffered: true });
  new PerformanceObserver((list) => list.getEntries().forEach((one) => (seen.shift += one.hadRecentInput ? 0 : one.value))).observe({ type: "layout-shift", buffered: true });
}"""

# Scrolls a list to its end, also while rows are still fetched, and returns the milliseconds between frames.
SCROLL = """async ([rows, step]) => {
  const list = document.querySelector(".grid-body"), frames = [];
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  let last = await frame();
  const end = last + 240_000;
  const count = () => Number(document.querySelector(".grid").getAttribute("aria-rowcount")) - 1;
  while (last < end && !(count() >= rows && list.scrollTop + list.clientHeight >= list.scrollHeight - 2)) {
    list.scrollTop += step;
    const now = await frame();
    frames.push(now - last);
    last = now;
  }
  return { frames, rows: count() };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=list(VIEWS), help="views whose first load is measured")
    parser.add_argument("--loads", type=int, default=1, help="first loads of each view, of which the figures are medians")
    parser.add_argument("--only-loads", action="store_true", help="measure the first loads alone")
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        sys.exit("Chromium is not installed. On Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)) as stack, running_browser() as browser:
        stack.generate("The first job.")
        first_loads(browser, stack, options.views, options.loads)
        if options.only_loads:
            return
        add_documents(stack, options.documents)
        scroll(browser, stack, "documents", VIEWS["documents"], options.documents)
        add_jobs(stack, options.jobs)
        scroll(browser, stack, "jobs", VIEWS["jobs"], options.jobs)
        for name in ("jobs", "operations"):
            idle(browser, stack, name)


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    stack = Stack(folder, environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
    entries = models(0.0)
    entries[0]["max_in_flight"] = 64
    stack.models.write_text(json.dumps(entries))
    try:
        yield stack.start()
    finally:
        stack.stop()
        stack.kill()


@contextmanager
def running_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, stack: Stack) -> Iterator[tuple[Page, CDPSession, list[int]]]:
    """A page with an empty cache, and the transferred bytes of each of its requests."""
    context = browser.new_context(base_url=stack.url, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    received: list[int] = []
    session.on("Network.loadingFinished", lambda event: received.append(int(event["encodedDataLength"])))
    yield page, session, received
    context.close()


def first_loads(browser: Browser, stack: Stack, views: Iterable[str], loads: int) -> None:
    """Views, opened by a browser that has nothing of them."""
    for name in views:
        readings = [first_load(browser, stack, VIEWS[name]) for _ in range(loads)]
        for what, unit in (
            ("largest_contentful_paint", "ms"),
            ("layout_shift", "score"),
            ("first_load_bytes", "B"),
            ("first_load_requests", "requests"),
        ):
            figure(f"page.{what}", statistics.median(reading[what] for reading in readings), unit, view=name, loads=loads)


def first_load(browser: Browser, stack: Stack, path: str) -> dict[str, float]:
    with open_page(browser, stack) as (page, session, received):
        session.send("Network.emulateNetworkConditions", LINE)
        page.goto(path)
        page.evaluate(OBSERVE)
        page.wait_for_load_state("networkidle")
        seen = page.evaluate("() => seen")
    return {
        "largest_contentful_paint": seen["paint"],
        "layout_shift": seen["shift"],
        "first_load_bytes": sum(received),
        "first_load_requests": len(received),
    }


def idle(browser: Browser, stack: Stack, name: str) -> None:
    """What a view transfers while it is open and nothing happens."""
    with open_page(browser, stack) as (page, _, received):
        page.goto(VIEWS[name])
        page.wait_for_load_state("networkidle")
        del received[:]
        page.wait_for_timeout(1000 * IDLE_SECONDS)
        figure("page.idle_bytes", sum(received) * 60 / IDLE_SECONDS, "B/min", view=name, requests=len(received))


def add_documents(stack: Stack, number: int) -> None:
    for first in range(0, number, FILES_PER_UPLOAD):
        names = range(first, min(number, first + FILES_PER_UPLOAD))
        files = [("file", (f"report-{name:04}.txt", f"Report {name} about boats.".encode())) for name in names]
        stack.client.post("/collections/bench/documents", files=files).raise_for_status()
    wait_until(lambda: unfinished(stack) == 0, "all documents are read", seconds=600, every=1)


def unfinished(stack: Stack) -> int:
    return sum(int(queue["waiting"]) + int(queue["running"]) for queue in stack.client.get("/admin/queues").json()["data"])


def add_jobs(stack: Stack, number: int) -> None:
    with ThreadPoolExecutor(SENDERS) as senders:
        list(senders.map(lambda name: stack.generate(f"Question {name} about boats", max_tokens=8), range(number)))
    wait_until(lambda: unfinished(stack) == 0, "all jobs have ended", seconds=600, every=1)


def scroll(browser: Browser, stack: Stack, name: str, path: str, rows: int) -> None:
    """The list of a view from its top to its end, and once more when all of its rows are there."""
    with open_page(browser, stack) as (page, _, _):
        page.goto(path)
        expect(page.locator(".grid-row").first).to_be_visible()
        for run, step in (("fetching", 2000), ("loaded", 400)):
            page.evaluate("() => document.querySelector('.grid-body').scrollTo(0, 0)")
            before = renderer_seconds()
            seen: dict[str, Any] = page.evaluate(SCROLL, [rows, step])
            frames: list[float] = seen["frames"]
            about = {"view": name, "rows": seen["rows"], "run": run, "frames": len(frames)}
            # Unlike the time of a frame, this is the same on a busy machine.
            figure("page.frame_cpu", 1000 * (renderer_seconds() - before) / len(frames), "ms", **about)
            figure("page.frame_worst", max(frames), "ms", **about)
            figure("page.frame_p99", percentile(frames, 99), "ms", **about)
            figure("page.frames_over_100_ms", sum(frame > 100 for frame in frames), "frames", **about)


def renderer_seconds() -> float:
    """CPU seconds of the browser's renderers so far."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "--type=renderer" in process.cmdline():
                seconds += sum(process.cpu_times()[:2])
    return seconds


if __name__ == "__main__":
    main()
