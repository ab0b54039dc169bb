"""kill -9 of any process of the stack in the middle of its work: every accepted job still ends, once."""

import os
import signal
from collections import Counter
from typing import Any

import httpx2
import psutil
import pytest

from shared.jobs.streams import read
from shared.redis_connection import connect
from tests.flows.stack import Stack
from tests.waiting import wait_until

TEXT = "the quick brown fox jumps over the lazy dog"


def children(stack: Stack, name: str) -> list[psutil.Process]:
    return psutil.Process(stack.pid(name)).children(recursive=True)


def engine_of(stack: Stack) -> psutil.Process:
    [engine] = [process for process in children(stack, "gpu0") if "workers.gpu.engine" in process.cmdline()]
    return engine


def running(stack: Stack, count: int) -> list[str]:
    """So many generations of about two seconds, all of which have told a first token."""
    jobs = [stack.generate(TEXT)["id"] for _ in range(count)]
    for job in jobs:
        wait_until(lambda job=job: stack.job(job)["timings"]["first_token"], f"the first token of {job}", seconds=30)
    return jobs


def check_ended_once(stack: Stack, jobs: list[str]) -> list[dict[str, Any]]:
    """Each job completed with the whole answer, has one end, and its stream shows a restart if it had been shown text."""
    client = connect(stack.redis_url())
    views = [stack.ended(job) for job in jobs]
    for view in views:
        assert (view["status"], view["result"]["text"]) == ("completed", TEXT), view
        assert Counter(attempt["outcome"] for attempt in view["attempts"])["completed"] == 1
        events = read(client, view["id"])
        assert [event.type for event in events].count("ended") == 1
        last_start = max(index for index, event in enumerate(events) if event.type == "started")
        shown = "".join(event.data["text"] for event in events[last_start:] if event.type == "delta")
        assert shown == TEXT, "the deltas after the last restart are the answer"
        assert any(event.type == "restart" for event in events) == (len(view["attempts"]) > 1)
    assert client.zcard("eh:jobs:due") == 0
    assert not list(client.scan_iter("eh:worker:*:jobs"))
    client.close()
    return views


def test_a_killed_model_worker(slow_stack: Stack) -> None:
    jobs = running(slow_stack, 8)
    os.kill(slow_stack.pid("gpu0"), signal.SIGKILL)
    views = check_ended_once(slow_stack, jobs)
    assert all([attempt["outcome"] for attempt in view["attempts"]] == ["lost", "completed"] for view in views)


def test_a_killed_engine_process(slow_stack: Stack) -> None:
    worker = slow_stack.pid("gpu0")
    jobs = running(slow_stack, 8)
    engine_of(slow_stack).kill()
    views = check_ended_once(slow_stack, jobs)
    assert all([attempt["outcome"] for attempt in view["attempts"]] == ["retried", "completed"] for view in views)
    assert slow_stack.pid("gpu0") == worker, "the worker lives on"


def test_a_killed_io_worker(slow_stack: Stack) -> None:
    slow_stack.client.post("/collections/facts/documents", files={"file": ("a.txt", TEXT.encode())})
    jobs = [slow_stack.generate("what does the fox do?", collection="facts", max_tokens=5)["id"] for _ in range(8)]
    os.kill(slow_stack.pid("io"), signal.SIGKILL)
    for job in jobs:
        assert slow_stack.ended(job)["status"] == "completed"


@pytest.mark.parametrize("victim", ["main", "child"])
def test_a_killed_cpu_worker(slow_stack: Stack, victim: str) -> None:
    files = [("file", (f"{victim}{n}.txt", f"{victim} {n} {TEXT}. ".encode() * 60)) for n in range(3)]
    answer = slow_stack.client.post(f"/collections/{victim}/documents", files=files).json()
    first = answer["data"][0]
    wait_until(lambda: slow_stack.job(first["job"])["status"] == "in_progress", "the first document is under way", seconds=30)
    if victim == "main":
        os.kill(slow_stack.pid("cpu"), signal.SIGKILL)
    else:
        holder = slow_stack.job(first["job"])["attempts"][-1]["worker"]
        os.kill(int(holder.rpartition("/")[2]), signal.SIGKILL)
    for document in answer["data"]:
        assert slow_stack.ended(document["job"])["status"] == "completed"
        view = slow_stack.client.get(f"/documents/{document['id']}").json()
        assert (view["status"], view["reason"]) == ("ready", None)
    hits = slow_stack.post(f"/collections/{victim}/search", {"query": TEXT, "top_k": 100}).json()["data"]
    places = [(hit["document_id"], hit["start"]) for hit in hits]
    assert len(set(places)) == len(places) == sum(
        slow_stack.client.get(f"/documents/{document['id']}").json()["chunks"] for document in answer["data"]
    )  # fmt: skip


def test_a_killed_api_process(slow_stack: Stack) -> None:
    jobs = [slow_stack.generate(TEXT)["id"] for _ in range(4)]
    for process in children(slow_stack, "api"):
        process.kill()
    wait_until(lambda: answers(slow_stack), "the API answers again", seconds=20)
    check_ended_once(slow_stack, jobs)


def test_a_killed_redis(slow_stack: Stack) -> None:
    jobs = running(slow_stack, 4)
    os.kill(slow_stack.pid("redis"), signal.SIGKILL)
    wait_until(lambda: answers(slow_stack), "the API answers again", seconds=20)
    views = check_ended_once(slow_stack, jobs)
    assert all(len(view["attempts"]) == 1 for view in views), "a short outage costs no attempt"


def test_a_killed_chroma(slow_stack: Stack) -> None:
    os.kill(slow_stack.pid("chroma"), signal.SIGKILL)
    answer = slow_stack.client.post("/collections/chroma/documents", files={"file": ("c.txt", TEXT.encode())}).json()
    assert slow_stack.ended(answer["data"][0]["job"])["status"] == "completed"


def answers(stack: Stack) -> bool:
    try:
        return bool(stack.client.get("/health/ready").status_code == 200)
    except httpx2.HTTPError:
        return False
