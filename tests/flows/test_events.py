"""Event streams deliver every event of a job once and in order, from any position."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2

from testing.fault_rig.processes import has_word
from testing.stack import Stack
from testing.waiting import wait_until

TEXT = "a text of some length that takes a moment"


def lines(answer: httpx2.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream: id, event and data."""
    event: dict[str, Any] = {}
    for line in answer.iter_lines():
        if not line:
            if "event" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value


def follow(stack: Stack, job: str, **options: Any) -> list[dict[str, Any]]:
    with stack.client.stream("GET", f"/jobs/{job}/events", timeout=240, **options) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return list(lines(answer))


def text(events: list[dict[str, Any]]) -> str:
    return "".join(event["data"]["text"] for event in events if event["event"] == "delta")


def test_a_stream_shows_the_whole_job_and_ends_with_it(slow_stack: Stack) -> None:
    job = slow_stack.generate(TEXT)["id"]
    events = follow(slow_stack, job)
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    assert [event["event"] for event in events if event["event"] != "delta"] == ["queued", "started", "ended"]
    assert text(events) == TEXT == slow_stack.job(job)["result"]["text"]
    assert len([event for event in events if event["event"] == "delta"]) > 5, "text arrives while the model generates"
    assert events[-1]["data"]["status"] == "completed"


def test_a_late_reader_gets_the_whole_stream(stack: Stack) -> None:
    job = stack.ended(stack.generate("late")["id"])["id"]
    assert text(follow(stack, job)) == "late"


def test_a_reader_that_reconnects_misses_and_repeats_nothing(slow_stack: Stack) -> None:
    job = slow_stack.generate(TEXT)["id"]
    seen: list[dict[str, Any]] = []
    with slow_stack.client.stream("GET", f"/jobs/{job}/events", timeout=240) as answer:
        for event in lines(answer):
            seen.append(event)
            if len(seen) == 8:
                break
    rest = follow(slow_stack, job, headers={"Last-Event-ID": seen[-1]["id"]})
    assert [int(event["id"]) for event in seen + rest] == list(range(1, len(seen) + len(rest) + 1))
    assert text(seen + rest) == TEXT
    assert follow(slow_stack, job, params={"after": seen[-1]["id"]}) == rest


def test_a_finished_stream_answers_204(stack: Stack) -> None:
    job = stack.ended(stack.generate("over")["id"])["id"]
    last = follow(stack, job)[-1]["id"]
    assert stack.client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": last}).status_code == 204


def test_each_of_many_readers_gets_all_events(slow_stack: Stack) -> None:
    from concurrent.futures import ThreadPoolExecutor

    job = slow_stack.generate(TEXT)["id"]
    with ThreadPoolExecutor(20) as pool:
        streams = list(pool.map(lambda _: follow(slow_stack, job), range(20)))
    assert all(text(events) == TEXT for events in streams)


def test_a_new_attempt_continues_where_the_last_one_ended(slow_stack: Stack) -> None:
    import psutil

    text_sent = TEXT * 5  # long enough to be interrupted
    job = slow_stack.generate(text_sent, max_tokens=300)["id"]
    wait_until(lambda: slow_stack.job(job)["timings"]["first_token"], "the first token")
    [engine] = [
        process
        for process in psutil.Process(slow_stack.pid("gpu0")).children(recursive=True)
        if has_word(process, "workers.gpu.engine")
    ]
    engine.kill()
    events = follow(slow_stack, job)
    names = [event["event"] for event in events]
    assert names.count("started") == 2
    assert "restart" not in names
    assert text(events) == text_sent
    job = slow_stack.job(job)
    assert job["result"]["text"] == text_sent
    assert job["result"]["usage"]["completion_tokens"] == len(text_sent)


def test_invalid_positions_and_unknown_jobs_are_rejected(stack: Stack) -> None:
    job = stack.generate("x")["id"]
    assert stack.client.get(f"/jobs/{job}/events", headers={"Last-Event-ID": "abc"}).status_code == 422
    assert stack.client.get(f"/jobs/{job}/events", params={"after": "-1"}).status_code == 422
    assert stack.client.get("/jobs/job_nope/events").status_code == 404
