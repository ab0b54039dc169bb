"""A long scan while the processes that read it are killed: no page is read twice."""

import json
import os
from pathlib import Path

import pytest
from fpdf import FPDF

from testing.fault_rig.fault_stack import FaultStack
from testing.fault_rig.processes import kill
from testing.waiting import wait_until
from tests.scans import draw_text

pytestmark = pytest.mark.slow_fault
KILLS = 4
PAGES = 500
SECONDS = 1800
STACK_OPTIONS = {"environment": {"ENGINEHOUSE_MAX_ATTEMPTS": str(KILLS + 2), "ENGINEHOUSE_CPU_WORKERS": "1"}}
TEXTS = ("Boilers are inspected in May.", "Close the main valve.", "The archive opens at nine.", "Boats sail at noon.")


def scan(pages: int) -> bytes:
    """A PDF whose pages show a few pictures of text in turn, so that it is small and quickly made."""
    document = FPDF(unit="pt", format=(260, 60))
    pictures = [draw_text(text, width=520, height=120) for text in TEXTS]
    for number in range(pages):
        document.add_page()
        document.image(pictures[number % len(pictures)], x=0, y=0, w=260)
    return bytes(document.output())


def stored_pages(file: Path) -> list[int]:
    """The numbers of the pages that are stored, each as often as it was read."""
    lines = file.read_bytes().split(b"\n") if file.exists() else []
    return [json.loads(line.partition(b" ")[2])["number"] for line in lines if line.endswith(b"}")]


@pytest.mark.timeout(2 * SECONDS)
def test_a_scan_of_500_pages_survives_four_kills_and_no_page_is_read_twice(stack: FaultStack, tmp_path: Path) -> None:
    document, job = stack.upload_file("scans", "long.pdf", scan(PAGES))
    read = stack.server.data / "documents" / document / "ocr.jsonl"
    for number in range(1, KILLS + 1):
        goal = number * PAGES // (KILLS + 1)
        wait_until(lambda goal=goal: len(stored_pages(read)) >= goal, f"{goal} pages are read", seconds=SECONDS, every=0.2)
        if number == 1:
            # The file is only appended to, and unlinked at the end. This name of it stays.
            os.link(read, tmp_path / "read")
        worker = int(stack.read_job(job).worker.rpartition("/")[2])
        kill(stack.pid_of("cpu") if number % 2 else worker)
        wait_until(lambda number=number: stack.read_job(job).attempt > number, "another attempt has begun", seconds=SECONDS)
    wait_until(lambda: stack.read_job(job).status.final, "the scan is read", seconds=SECONDS)
    assert stack.wait_for_end(job).status == "completed"
    assert sorted(stored_pages(tmp_path / "read")) == list(range(1, PAGES + 1)), "each page once"
    view = stack.client.get(f"/documents/{document}").json()
    assert (view["status"], view["pages"], view["problems"]) == ("ready", PAGES, [])
    last = stack.client.get(f"/documents/{document}/pages/{PAGES}/text").json()
    assert last["text"] == TEXTS[(PAGES - 1) % len(TEXTS)]
