"""The jobs view of the page with many jobs: the longest frame while all are scrolled through, and the bytes of an idle minute.

``python -m benchmarks.job_list``. The queue of the jobs is paused meanwhile, so that the view asks for changes as often as it does.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, Response, sync_playwright

from benchmarks.figures import figure, percentile
from shared.jobs.submission import JobSubmitter, Submission
from shared.redis_connection import connect
from shared.settings import Settings
from testing.stack import QUICK, Stack

QUEUE, MODEL = "gpu.echo", "echo"
AT_ONCE = 500
IDLE_SECONDS = 60
SLOW_MS = 100
# The times of frames while the list is scrolled by half a screen in each, until the end of what can be loaded.
SCROLL = """async () => {
    const body = document.querySelector('.grid-body');
    const rows = () => Number(document.querySelector('.grid').getAttribute('aria-rowcount')) - 1;
    const frames = [];
    let last = performance.now(), still = 0, before = 0;
    while (still < 300) {
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        frames.push(now - last);
        last = now;
        body.scrollTop += body.clientHeight / 2;
        still = rows() === before ? still + 1 : 0;
        before = rows();
    }
    return { frames, rows: rows() };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    count = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        stack = Stack(Path(folder), environment=QUICK)
        try:
            stack.start()
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            measure(stack, browser, count, Path(folder))
            browser.close()
        finally:
            stack.stop()
            stack.kill()


def measure(stack: Stack, browser: Browser, count: int, folder: Path) -> None:
    stack.client.put(f"/admin/queues/{QUEUE}", json={"paused": True}).raise_for_status()
    settings = Settings(redis_url=stack.redis_url(), data_dir=stack.data)
    submitter = JobSubmitter(connect(settings.redis_url), settings, lambda queue, number: None)
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(count, start + AT_ONCE))
        submitter.submit_jobs(
            [
                Submission(kind="generate", queue=QUEUE, model=MODEL, owner="local", spec={"prompt": f"Question {n}"})
                for n in numbers
            ]
        )
    page = browser.new_page(base_url=stack.url, viewport={"width": 1280, "height": 800})
    page.goto("/ui/jobs")
    page.locator("[data-job]").first.wait_for()
    trace = folder / "trace.json"
    browser.start_tracing(page=page, path=trace, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    found = page.evaluate(SCROLL)
    browser.stop_tracing()
    slow = sum(frame > SLOW_MS for frame in found["frames"])
    about = {"rows": found["rows"], "frames": len(found["frames"]), f"over_{SLOW_MS}_ms": slow}
    for percent in (50, 99, 100):
        figure("job_list.frame", percentile(found["frames"], percent), "ms", percentile=percent, **about)
    # Other processes make frames longer, and not the processor time of a task.
    figure("job_list.longest_task", longest_task(trace), "ms of CPU", rows=found["rows"])
    answer = stack.post("/jobs/actions", {"action": "cancel", "filter": {"status": "queued"}, "limit": 1000})
    while (after := answer.json()["next"]) is not None:
        answer = stack.post("/jobs/actions", {"action": "cancel", "filter": {"status": "queued"}, "after": after})
    page.reload()
    page.locator("[data-job]").first.wait_for()
    measure_idle(page, count)


def longest_task(trace: Path) -> float:
    """Milliseconds of processor time of the longest task of the page's main thread."""
    events = json.loads(trace.read_text())["traceEvents"]
    main_threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    tasks = (event for event in events if event["name"] == "RunTask" and (event["pid"], event["tid"]) in main_threads)
    return max(float(task.get("tdur", 0)) for task in tasks) / 1000


def measure_idle(page: Page, count: int) -> None:
    page.wait_for_timeout(10_000)
    answers: list[Response] = []
    page.on("response", lambda response: answers.append(response))
    started = time.monotonic()
    page.wait_for_timeout(1000 * IDLE_SECONDS)
    sizes = [answer.request.sizes() for answer in answers]
    received = sum(size["responseHeadersSize"] + size["responseBodySize"] for size in sizes)
    minutes = (time.monotonic() - started) / 60
    figure("job_list.idle", received / minutes / 1000, "kB a minute", jobs=count, requests=len(answers))


if __name__ == "__main__":
    main()
