"""The jobs view of the page with many jobs: the longest frame while all are scrolled through, and the bytes of an idle minute.

``python -m benchmarks.job_list``. The queue of the jobs is paused meanwhile, so that the view asks for changes as often as it does.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, Response, sync_playwright

from benchmarks.figures import figure
from shared.jobs.submission import JobSubmitter, Submission
from shared.redis_connection import connect
from shared.settings import Settings
from testing.stack import QUICK, Stack

QUEUE, MODEL = "gpu.echo", "echo"
AT_ONCE = 500
IDLE_SECONDS = 60
# Collects the time of each frame, and scrolls by a screen in each until the end of what is loaded.
SCROLL = """async () => {
    const body = document.querySelector('.grid-body');
    const rows = () => Number(document.querySelector('.grid').getAttribute('aria-rowcount')) - 1;
    let longest = 0, frames = 0, last = performance.now(), still = 0, before = 0;
    while (still < 600) {
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
        frames += 1;
        body.scrollTop += body.clientHeight / 2;
        still = rows() === before ? still + 1 : 0;
        before = rows();
    }
    return { longest, frames, rows: rows() };
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
            measure(stack, browser, count)
            browser.close()
        finally:
            stack.stop()
            stack.kill()


def measure(stack: Stack, browser: Browser, count: int) -> None:
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
    found = page.evaluate(SCROLL)
    figure("job_list.longest_frame", found["longest"], "ms", rows=found["rows"], frames=found["frames"])
    answer = stack.post("/jobs/actions", {"action": "cancel", "filter": {"status": "queued"}, "limit": 1000})
    while (after := answer.json()["next"]) is not None:
        answer = stack.post("/jobs/actions", {"action": "cancel", "filter": {"status": "queued"}, "after": after})
    page.reload()
    page.locator("[data-job]").first.wait_for()
    measure_idle(page, count)


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
