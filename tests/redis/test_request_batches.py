"""Request batches without workers: the runner in this process, and a stand-in that ends the jobs of its requests."""

import io
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from shared.disk_space import DiskSpace
from shared.errors import DiskFull
from shared.ids import new_id
from shared.jobs.models import Job, Status
from shared.jobs.queue_names import REQUEST_BATCH_QUEUE, generation_queue
from shared.openai.batches import job_of
from shared.openai.files import FileStore
from shared.owners.limits import OwnerLimits
from shared.redis_connection import PREFIX
from shared.settings import Settings
from testing.waiting import wait_until
from tests.conftest import JobSystem
from workers.io.request_batches.runner import BatchServices, run_request_batch
from workers.io.request_batches.unpublished import UnpublishedOutput
from workers.runtime.attempt import Attempt, AttemptStopped
from workers.runtime.attempt_runner import AttemptRunner
from workers.runtime.event_publisher import EventPublisher

MODEL = "gemma-3-270m"
ENDPOINT = "/v1/completions"


@pytest.fixture
def small(settings: Settings) -> Settings:
    return replace(settings, batch_window=8, max_batch_requests=300, max_body_bytes=4096, min_free_bytes=1024)


@pytest.fixture
def system(redis_client: redis.Redis, small: Settings) -> JobSystem:
    redis_client.hset(PREFIX + "models", MODEL, "1")
    return JobSystem(redis_client, small, lambda queue, count: None)


@pytest.fixture
def app(small: Settings, system: JobSystem) -> Flask:
    return create_app(small)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def services(app: Flask, system: JobSystem, small: Settings) -> BatchServices:
    disk_space = DiskSpace(small.data_dir, small.min_free_bytes)
    return BatchServices(
        client=system.client,
        settings=small,
        submitter=system.submitter,
        transitions=system.transitions,
        models=app.extensions["enginehouse"].models,
        files=FileStore(system.client, small, disk_space),
        disk_space=disk_space,
    )


def line(custom_id: Any, prompt: Any = "x", *, url: Any = ENDPOINT, method: Any = "POST", **body: Any) -> bytes:
    request = {"custom_id": custom_id, "method": method, "url": url, "body": {"model": MODEL, "prompt": prompt, **body}}
    return json.dumps(request).encode() + b"\n"


def create(client: FlaskClient, content: bytes, **fields: Any) -> dict[str, Any]:
    """A batch on a file with this content."""
    file = client.post("/v1/files", data={"file": (io.BytesIO(content), "in.jsonl"), "purpose": "batch"}).get_json()
    body = {"input_file_id": file["id"], "endpoint": ENDPOINT, "completion_window": "24h", **fields}
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.get_json()
    return dict(answer.get_json())


def show(client: FlaskClient, batch: Mapping[str, Any]) -> dict[str, Any]:
    return dict(client.get(f"/v1/batches/{batch['id']}").get_json())


class Runs:
    """Attempts at batches, each in the order claim, run, settle."""

    def __init__(self, system: JobSystem, services: BatchServices) -> None:
        self._system, self._services = system, services

    def claim(self) -> Attempt:
        job = self._system.transitions.claim(REQUEST_BATCH_QUEUE, "io/1", new_id("clm"))
        assert job is not None
        return Attempt(job, lambda events: None)

    def run(self, attempt: Attempt) -> str:
        """Run an attempt as a worker does, and return its outcome."""
        handlers = {"request_batch": lambda attempt: run_request_batch(attempt, self._services)}
        return AttemptRunner(self._system.transitions, EventPublisher(self._system.transitions), handlers).run_attempt(attempt)

    def run_until_stopped(self, attempt: Attempt, started: Callable[[], bool], stop: Callable[[], object]) -> None:
        """Run the handler alone until ``started``, and then ``stop`` it. What it then raises is ignored: the process is dead."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                run_request_batch(attempt, self._services)
            except (AttemptStopped, DiskFull) as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        wait_until(started, "the attempt has come so far")
        stop()
        thread.join(20)
        assert errors


@pytest.fixture
def runs(system: JobSystem, services: BatchServices) -> Runs:
    return Runs(system, services)


@contextmanager
def model_worker(system: JobSystem, answer: Callable[[Job], Any] = lambda job: job.spec["prompt"]) -> Iterator[Counter[str]]:
    """Answers the jobs of the model with what ``answer`` returns, and counts them by their prompt. With None a job runs until it is
    cancelled."""
    ended, counts = threading.Event(), Counter[str]()
    running: list[str] = []

    def end_cancelled() -> None:
        for job in system.queries.read_jobs(running):
            if job.cancel_requested_at:
                running.remove(job.id)
                system.transitions.finish((job.id, job.attempt), Status.CANCELLED)

    def run() -> None:
        while not ended.is_set():
            end_cancelled()
            job = system.transitions.claim(generation_queue(MODEL), "gpu0/1", new_id("clm"))
            if job is None:
                ended.wait(0.005)
                continue
            counts[job.spec["prompt"]] += 1
            text = answer(job)
            if text is None:
                running.append(job.id)
                continue
            usage = {"prompt_tokens": 2, "completion_tokens": 3}
            system.transitions.finish(
                (job.id, job.attempt), Status.COMPLETED, result={"text": text, "finish_reason": "stop", "usage": usage}
            )

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join(10)


def lines_of(client: FlaskClient, file: str | None) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.get(f"/v1/files/{file}/content").data.splitlines()] if file else []


def outcomes(client: FlaskClient, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of each request, or the code of its error. Fails if a request is there twice."""
    shown = show(client, batch)
    answers = lines_of(client, shown["output_file_id"])
    errors = lines_of(client, shown["error_file_id"])
    found = {entry["custom_id"]: entry["response"]["body"]["choices"][0]["text"] for entry in answers}
    for entry in errors:
        found[entry["custom_id"]] = (entry["error"] or entry["response"]["body"]["error"])["code"]
    assert len(found) == len(answers) + len(errors)
    return found


def test_each_request_is_answered_once_and_leaves_no_job(client: FlaskClient, system: JobSystem, runs: Runs) -> None:
    content = b"\xef\xbb\xbf" + b"".join(line(f"r{number}", f"p{number}") + b"\n" * (number % 2) for number in range(100))
    batch = create(client, content + line("none", max_tokens=0) + line("two", ["a", "b"]).rstrip(), metadata={"run": "7"})
    assert (batch["status"], batch["metadata"]) == ("validating", {"run": "7"})
    with model_worker(system) as counts:
        assert runs.run(runs.claim()) == "completed"
    assert outcomes(client, batch) == {
        **{f"r{number}": f"p{number}" for number in range(100)},
        "none": "invalid_value",
        "two": "a",
    }
    assert set(counts.values()) == {1}
    shown = show(client, batch)
    assert (shown["status"], shown["model"], shown["errors"]) == ("completed", MODEL, None)
    assert shown["request_counts"] == {"total": 102, "completed": 101, "failed": 1}
    assert (shown["usage"]["input_tokens"], shown["usage"]["output_tokens"], shown["usage"]["total_tokens"]) == (204, 306, 510)
    [answer] = [entry for entry in lines_of(client, shown["output_file_id"]) if entry["custom_id"] == "two"]
    assert [choice["text"] for choice in answer["response"]["body"]["choices"]] == ["a", "b"]
    [refused] = lines_of(client, shown["error_file_id"])
    assert (refused["response"]["status_code"], refused["error"]) == (400, None)
    assert [job["kind"] for job in client.get("/jobs").get_json()["data"]] == ["request_batch"]
    job = client.get(f"/jobs/{shown['job_id']}").get_json()
    assert job["result"]["request_counts"] == job["request_counts"] == shown["request_counts"]
    assert list(system.settings.request_batches_dir.iterdir()) == []


BAD_LINES: Mapping[str, tuple[bytes, str, str | None]] = {
    "no JSON": (b'{"custom_id": \n', "invalid_json_line", None),
    "no object": (b"[1]\n", "invalid_json_line", None),
    "not UTF-8": (b'{"custom_id": "\xff"}\n', "invalid_json_line", None),
    "nested": (b"[" * 4000 + b"\n", "invalid_json_line", None),
    "not finite": (line("a").replace(b'"x"', b"NaN"), "invalid_json_line", None),
    "no custom_id": (line(None), "missing_required_parameter", "custom_id"),
    "number": (line(7), "invalid_custom_id", "custom_id"),
    "empty": (line(""), "invalid_custom_id", "custom_id"),
    "long": (line("x" * 513), "invalid_custom_id", "custom_id"),
    "twice": (line("first"), "duplicate_custom_id", "custom_id"),
    "no method": (line("a", method=None), "missing_required_parameter", "method"),
    "GET": (line("a", method="GET"), "invalid_method", "method"),
    "no url": (line("a", url=None), "missing_required_parameter", "url"),
    "other url": (line("a", url="/v1/embeddings"), "mismatched_url", "url"),
    "no body": (b'{"custom_id": "a", "method": "POST", "url": "/v1/completions"}\n', "missing_required_parameter", "body"),
    "text": (b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": "x"}\n', "invalid_body", "body"),
    "too long": (line("a", "x" * 5000), "request_too_large", None),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_fails_the_batch_with_its_number(case: str, client: FlaskClient, runs: Runs, system: JobSystem) -> None:
    bad, code, param = BAD_LINES[case]
    batch = create(client, line("first") + b"\n" + bad + line("last"))
    assert runs.run(runs.claim()) == "failed"
    shown = show(client, batch)
    assert (shown["status"], shown["failed_at"] is not None, shown["output_file_id"]) == ("failed", True, None)
    [error] = shown["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == (code, 3, param)
    assert client.get(f"/jobs/{shown['job_id']}").get_json()["error"]["code"] == "invalid_batch"
    assert list(system.settings.request_batches_dir.iterdir()) == []


def test_files_without_requests_or_with_too_many_fail(client: FlaskClient, runs: Runs, services: BatchServices) -> None:
    many = b"".join(line(str(number)) for number in range(301))
    for content, code in ((b"", "empty_file"), (b"\n \n", "empty_file"), (many, "too_many_requests")):
        batch = create(client, content)
        runs.run(runs.claim())
        assert [(error["code"], error["line"]) for error in show(client, batch)["errors"]["data"]] == [(code, None)]
    batch = create(client, line("a"))
    client.delete(f"/v1/files/{batch['input_file_id']}")
    runs.run(runs.claim())
    assert show(client, batch)["errors"]["data"][0]["code"] == "file_not_found"


def test_all_bad_lines_up_to_a_hundred_are_reported(client: FlaskClient, runs: Runs) -> None:
    batch = create(client, b"".join(b"no JSON\n" if number % 2 else line(str(number)) for number in range(250)))
    runs.run(runs.claim())
    errors = show(client, batch)["errors"]["data"]
    assert [error["line"] for error in errors] == list(range(2, 202, 2))


BAD_BODIES: Mapping[str, tuple[dict[str, Any], str]] = {
    "no file": ({"input_file_id": None}, "input_file_id"),
    "unknown file": ({"input_file_id": "file-x"}, "input_file_id"),
    "file of another purpose": ({"input_file_id": "user_data"}, "input_file_id"),
    "endpoint": ({"endpoint": "/v1/models"}, "endpoint"),
    "window": ({"completion_window": "soon"}, "completion_window"),
    "long window": ({"completion_window": "31d"}, "completion_window"),
    "metadata": ({"metadata": {"a": 1}}, "metadata.a"),
    "expiry": ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_bad_bodies_are_refused_by_field(case: str, client: FlaskClient) -> None:
    changes, param = BAD_BODIES[case]
    files = {
        purpose: client.post("/v1/files", data={"file": (io.BytesIO(b""), "a"), "purpose": purpose}).get_json()["id"]
        for purpose in ("batch", "user_data")
    }
    body = {"input_file_id": "batch", "endpoint": ENDPOINT, "completion_window": "24h", **changes}
    body["input_file_id"] = files.get(body["input_file_id"], body["input_file_id"])
    error = client.post("/v1/batches", json=body).get_json()["error"]
    assert error["param"] == param, error
    assert client.get("/v1/batches").get_json()["data"] == []


def test_unknown_batches_are_not_found(client: FlaskClient) -> None:
    generated = client.post("/generate", json={"prompt": "x"}).get_json()["id"]
    for id in ("x", "batch_x", generated, generated.replace("job_", "batch_")):
        for answer in (client.get(f"/v1/batches/{id}"), client.post(f"/v1/batches/{id}/cancel")):
            assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "batch_not_found")


def test_batches_are_listed_newest_first(client: FlaskClient) -> None:
    ids = [create(client, line("a"))["id"] for _ in range(5)]
    page = client.get("/v1/batches?limit=2").get_json()
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == ([ids[4], ids[3]], True)
    page = client.get(f"/v1/batches?after={page['last_id']}").get_json()
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == ([ids[2], ids[1], ids[0]], False)
    for query in ("limit=0", "after=x"):
        assert client.get(f"/v1/batches?{query}").status_code == 400
    job = job_of(ids[0])
    client.post(f"/v1/batches/{ids[0]}/cancel")
    assert client.delete(f"/jobs/{job}").status_code == 200
    assert [batch["id"] for batch in client.get("/v1/batches").get_json()["data"]] == ids[:0:-1]


def test_the_same_key_creates_one_batch(client: FlaskClient) -> None:
    file = client.post("/v1/files", data={"file": (io.BytesIO(b""), "a"), "purpose": "batch"}).get_json()["id"]
    body = {"input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h"}
    ids = {client.post("/v1/batches", json=body, headers={"Idempotency-Key": "k"}).get_json()["id"] for _ in range(2)}
    assert len(ids) == 1
    other = client.post("/v1/batches", json={**body, "completion_window": "1h"}, headers={"Idempotency-Key": "k"})
    assert other.get_json()["error"]["code"] == "idempotency_conflict"


def test_the_window_bounds_the_jobs_in_flight(client: FlaskClient, system: JobSystem, runs: Runs) -> None:
    batch = create(client, b"".join(line(str(number)) for number in range(40)))
    attempt = runs.claim()
    queued: list[int] = []
    runs.run_until_stopped(
        attempt,
        lambda: queued.append(system.client.zcard(f"{PREFIX}queue:{generation_queue(MODEL)}:jobs:local")) or len(queued) > 20,
        lambda: attempt.request_stop("release"),
    )
    assert max(queued) == 8
    job = next(job for job in system.queries.list_jobs("local", limit=9)[0] if job.kind == "generate")
    assert (job.priority, job.line_of) == (8, attempt.job.id)
    assert client.get(f"/jobs/{job.id}").get_json()["request_batch"] == batch["id"]


def lose(system: JobSystem) -> None:
    system.maintenance.mark_worker_dead("io/1")


def test_a_lost_attempt_repeats_nothing(client: FlaskClient, system: JobSystem, runs: Runs, services: BatchServices) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(200)))

    def lose_attempt_after(done: int) -> None:
        attempt = runs.claim()
        runs.run_until_stopped(
            attempt, lambda: show(client, batch)["request_counts"]["completed"] >= done, lambda: lose_and_stop(system, attempt)
        )
        # What a crash leaves: a torn line after what counts.
        folder = services.settings.request_batches_dir / attempt.job.id
        with (folder / f"output.{attempt.job.attempt}").open("ab") as torn:
            torn.write(b'{"custom_id": "torn')
        release_delay(system, attempt.job.id)

    with model_worker(system) as counts:
        # More often than a job may lose its worker: one that makes progress is not at fault.
        for done in (30, 60, 90, 120, 150):
            lose_attempt_after(done)
        assert runs.run(runs.claim()) == "completed"
    assert outcomes(client, batch) == {f"r{number}": f"p{number}" for number in range(200)}
    assert set(counts.values()) == {1}, "no request ran twice"


def test_a_batch_whose_output_is_gone_runs_again(
    client: FlaskClient, system: JobSystem, runs: Runs, services: BatchServices
) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(60)))
    with model_worker(system):
        attempt = runs.claim()
        runs.run_until_stopped(
            attempt, lambda: show(client, batch)["request_counts"]["completed"] >= 20, lambda: lose_and_stop(system, attempt)
        )
        shutil.rmtree(services.settings.request_batches_dir / attempt.job.id)
        assert runs.run(runs.claim()) == "completed"
    assert outcomes(client, batch) == {f"r{number}": f"p{number}" for number in range(60)}
    assert show(client, batch)["request_counts"] == {"total": 60, "completed": 60, "failed": 0}


def lose_and_stop(system: JobSystem, attempt: Attempt) -> None:
    lose(system)
    attempt.request_stop("lost")


def release_delay(system: JobSystem, job: str) -> None:
    """Make a job claimable that waits because its worker was lost."""
    record = system.client.hgetall(f"{PREFIX}job:{job}")
    if record["waiting"] == "retry_at":
        system.client.hset(f"{PREFIX}job:{job}", "not_before", 1)
        system.client.zadd(f"{PREFIX}jobs:due", {job: 1})
        system.maintenance.reap(leases=True, gap_ms=None, grace_ms=0)


def test_an_attempt_that_was_taken_for_dead_changes_nothing(
    client: FlaskClient, system: JobSystem, runs: Runs, services: BatchServices
) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(60)))
    with model_worker(system) as counts:
        stale = runs.claim()
        go_on = threading.Event()
        append, paused = services.disk_space.require, threading.Event()

        def require(size: int = 0) -> None:
            if threading.current_thread().name == "stale" and show_written(system, stale.job.id) >= 8:
                paused.set()
                go_on.wait(20)
            append(size)

        services.disk_space.require = require  # type: ignore[method-assign]
        errors: list[AttemptStopped] = []
        thread = threading.Thread(
            target=lambda: errors.append(stopped_by(lambda: run_request_batch(stale, services))), name="stale"
        )
        thread.start()
        assert paused.wait(20)
        lose(system)
        latest = runs.claim()
        second = threading.Thread(target=lambda: runs.run(latest))
        second.start()
        wait_until(lambda: show(client, batch)["request_counts"]["completed"] >= 30, "the next attempt works")
        go_on.set()
        for running in (thread, second):
            running.join(20)
    assert [error.reason for error in errors] == ["lost"]
    assert outcomes(client, batch) == {f"r{number}": f"p{number}" for number in range(60)}
    assert set(counts.values()) == {1}


def show_written(system: JobSystem, job: str) -> int:
    return int(system.client.bitcount(f"{PREFIX}job:{job}:written"))


def stopped_by(call: Callable[[], object]) -> AttemptStopped:
    with pytest.raises(AttemptStopped) as raised:
        call()
    return raised.value


def test_a_cancelled_batch_keeps_its_answers(client: FlaskClient, system: JobSystem, runs: Runs) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(100)))
    attempt = runs.claim()
    outcome: list[str] = []
    with model_worker(system, lambda job: job.spec["prompt"] if job.spec["prompt"] < "p3" else None):
        thread = threading.Thread(target=lambda: outcome.append(runs.run(attempt)))
        thread.start()
        wait_until(lambda: show(client, batch)["request_counts"]["completed"] >= 10, "some are answered")
        assert client.post(f"/v1/batches/{batch['id']}/cancel").get_json()["status"] == "cancelling"
        assert show(client, batch)["status"] == "cancelling"
        attempt.request_stop("cancel")
        thread.join(30)
    assert outcome == ["cancelled"]
    shown, found = show(client, batch), outcomes(client, batch)
    assert (shown["status"], shown["cancelled_at"] is not None) == ("cancelled", True)
    assert len(found) == shown["request_counts"]["completed"] + shown["request_counts"]["failed"] == 100
    assert all(answer in (f"p{id[1:]}", "batch_cancelled") for id, answer in found.items())
    again = client.post(f"/v1/batches/{batch['id']}/cancel")
    assert (again.status_code, again.get_json()["status"]) == (200, "cancelled")


def test_a_batch_that_is_cancelled_between_two_attempts_keeps_its_answers(
    client: FlaskClient, system: JobSystem, runs: Runs
) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(40)))
    with model_worker(system):
        attempt = runs.claim()
        runs.run_until_stopped(
            attempt, lambda: show(client, batch)["request_counts"]["completed"] >= 8, lambda: lose_and_stop(system, attempt)
        )
        assert client.post(f"/v1/batches/{batch['id']}/cancel").get_json()["status"] == "cancelling"
        assert runs.run(runs.claim()) == "cancelled"
    found = outcomes(client, batch)
    assert len(found) == 40
    assert sum(answer != "batch_cancelled" for answer in found.values()) >= 8
    queued = create(client, line("a"))
    assert client.post(f"/v1/batches/{queued['id']}/cancel").get_json()["status"] == "cancelled"


def test_a_batch_expires_with_its_window_and_keeps_its_answers(client: FlaskClient, system: JobSystem, runs: Runs) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(100)), completion_window="2s")
    with model_worker(system, lambda job: job.spec["prompt"] if job.spec["prompt"] < "p2" else None):
        assert runs.run(runs.claim()) == "completed"
    shown, found = show(client, batch), outcomes(client, batch)
    assert (shown["status"], shown["expired_at"] is not None, shown["completed_at"]) == ("expired", True, None)
    assert len(found) == 100
    assert {found[f"r{number}"] for number in range(20)} <= {f"p{number}" for number in range(20)} | {"batch_expired"}
    assert set(found.values()) > {"batch_expired", "p1"}


def test_a_full_disk_interrupts_the_batch_which_goes_on_with_more_space(
    client: FlaskClient, system: JobSystem, runs: Runs, services: BatchServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(60)))
    write, full = os.write, threading.Event()

    def write_half(file: int, data: bytes) -> int:
        if full.is_set() and threading.current_thread().name == "runner":
            write(file, bytes(data)[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", write_half)
    with model_worker(system) as counts:
        for attempt_number in (1, 2):
            attempt = runs.claim()
            outcome: list[str] = []
            thread = threading.Thread(target=lambda a=attempt, o=outcome: o.append(runs.run(a)), name="runner")
            thread.start()
            wait_until(lambda done=20 * attempt_number: show(client, batch)["request_counts"]["completed"] >= done, "it runs")
            full.set()
            thread.join(20)
            full.clear()
            assert outcome == ["released"]
            shown = client.get(f"/jobs/{attempt.job.id}").get_json()
            assert (shown["status"], shown["attempts"][-1]["error"]) == ("queued", "disk_full")
            release_delay(system, attempt.job.id)
        assert runs.run(runs.claim()) == "completed"
    assert outcomes(client, batch) == {f"r{number}": f"p{number}" for number in range(60)}
    assert set(counts.values()) == {1}


def test_a_full_queue_delays_the_batch(client: FlaskClient, system: JobSystem, runs: Runs, services: BatchServices) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(20)))
    system.submitter._settings = replace(system.settings, max_queued_per_owner=3)
    with model_worker(system):
        assert runs.run(runs.claim()) == "completed"
    assert len(outcomes(client, batch)) == 20


def test_requests_wait_while_a_budget_is_spent_and_fail_if_it_could_never_be_enough(
    client: FlaskClient, system: JobSystem, runs: Runs
) -> None:
    limits = OwnerLimits(system.client)
    limits.set_limits("local", {"tokens_per_day": 1, "tokens_per_minute": 1000})
    batch = create(client, line("waits") + line("too large", max_tokens=2000))
    with model_worker(system) as seen, ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(lambda: runs.run(runs.claim()))
        wait_until(lambda: show(client, batch)["status"] == "in_progress", "the batch runs")
        assert not seen
        limits.set_limits("local", {"tokens_per_day": None})
        assert outcome.result(60) == "completed"
    shown = show(client, batch)
    assert (shown["request_counts"]["completed"], shown["request_counts"]["failed"]) == (1, 1)
    [failed] = lines_of(client, shown["error_file_id"])
    assert failed["custom_id"] == "too large"
    assert "rate_limited" in json.dumps(failed)


def test_requests_that_begin_alike_run_together(client: FlaskClient, system: JobSystem, runs: Runs) -> None:
    heads = ["A long instruction. " * 30, "Another one. " * 40]
    content = b"".join(line(f"r{number}", heads[number % 2] + f"{number}") for number in range(20))
    create(client, content)
    order: list[str] = []
    with model_worker(system, lambda job: order.append(job.spec["prompt"]) or "x"):
        runs.run(runs.claim())
    # Jobs of one millisecond have no order, so there may be a few more changes than one.
    changes = sum(before[:6] != after[:6] for before, after in pairwise(order))
    assert (len(order), changes < 8) == (20, True)


def test_deleted_jobs_of_requests_run_again(client: FlaskClient, system: JobSystem, runs: Runs) -> None:
    batch = create(client, line("a", "first") + line("b", "second"))
    deleted: list[str] = []

    def answer(job: Job) -> str:
        return str(job.spec["prompt"])

    attempt = runs.claim()
    thread = threading.Thread(target=lambda: runs.run(attempt))
    thread.start()
    wait_until(lambda: len(system.queries.list_jobs("local", limit=5)[0]) == 3, "both are submitted")
    for job in system.queries.list_jobs("local", limit=5)[0]:
        if job.kind == "generate":
            system.transitions.cancel(job.id, "local")
            system.transitions.delete(job.id, "local")
            deleted.append(job.id)
            break
    with model_worker(system, answer):
        thread.join(20)
    assert len(deleted) == 1
    assert set(outcomes(client, batch).values()) <= {"first", "second", "answer_cancelled"}


def test_a_batch_that_fails_keeps_its_answers(
    client: FlaskClient, system: JobSystem, runs: Runs, services: BatchServices, small: Settings
) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(40)))
    with model_worker(system, lambda job: job.spec["prompt"] if job.spec["prompt"] < "p3" else None):
        attempt = runs.claim()

        def fail() -> None:
            system.transitions.finish(
                (attempt.job.id, attempt.job.attempt), Status.FAILED, error={"code": "worker_lost", "message": "x"}
            )
            attempt.request_stop("lost")

        runs.run_until_stopped(attempt, lambda: show(client, batch)["request_counts"]["completed"] >= 8, fail)
    shown = show(client, batch)
    assert (shown["status"], shown["output_file_id"]) == ("failed", None)
    unpublished = UnpublishedOutput(system.client, small, services.disk_space)
    # What a process writes that goes on after it was taken for dead.
    with (small.request_batches_dir / attempt.job.id / f"output.{attempt.job.attempt}").open("ab") as late:
        late.write(b"late")
    assert unpublished.publish() == 1
    assert unpublished.publish() == 0
    shown, found = show(client, batch), outcomes(client, batch)
    assert len(found) == shown["request_counts"]["completed"] >= 8
    assert all(answer == f"p{id[1:]}" for id, answer in found.items())
    assert not (small.request_batches_dir / attempt.job.id).exists()


def test_the_output_of_a_batch_that_runs_is_left_alone(
    client: FlaskClient, system: JobSystem, runs: Runs, services: BatchServices, small: Settings
) -> None:
    batch = create(client, b"".join(line(f"r{number}", f"p{number}") for number in range(40)))
    with model_worker(system):
        attempt = runs.claim()
        runs.run_until_stopped(
            attempt, lambda: show(client, batch)["request_counts"]["completed"] >= 8, lambda: lose_and_stop(system, attempt)
        )
        assert UnpublishedOutput(system.client, small, services.disk_space).publish() == 0
        assert system.client.hget(f"{PREFIX}job:{attempt.job.id}:requests", "phase") == "in_progress"
        assert runs.run(runs.claim()) == "completed"
    assert len(outcomes(client, batch)) == 40


def test_requests_run_with_the_key_of_their_line_or_else_of_the_batch(client: FlaskClient, system: JobSystem, runs: Runs) -> None:
    keys = set[tuple[str, str, int]]()
    content = b"".join(line(f"r{number}", f"p{number}") for number in range(6))
    content += b"".join(line(f"own{number}", "own", concurrency_key="own", concurrency_limit=2) for number in range(4))
    batch = create(client, content, concurrency_key="batch")

    def answer(job: Job) -> Any:
        keys.add((job.spec["prompt"][:1], job.concurrency_key, job.concurrency_limit))
        return job.spec["prompt"]

    with model_worker(system, answer):
        assert runs.run(runs.claim()) == "completed"
    assert keys == {("p", "batch", 1), ("o", "own", 2)}
    assert len(outcomes(client, batch)) == 10


def test_a_batch_with_a_malformed_key_names_its_field(client: FlaskClient) -> None:
    body = {"input_file_id": "file-x", "endpoint": ENDPOINT, "completion_window": "24h", "concurrency_limit": 3}
    refused = client.post("/v1/batches", json=body)
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "concurrency_limit")
