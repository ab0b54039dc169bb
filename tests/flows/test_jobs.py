"""Jobs are listed, cancelled and deleted."""

import itertools

from testing.stack import Stack
from testing.waiting import wait_until


def test_the_list_pages_from_newest_to_oldest(stack: Stack) -> None:
    jobs = [stack.generate(f"number {n}")["id"] for n in range(5)]
    for job in jobs:
        stack.ended(job)
    first = stack.client.get("/jobs", params={"limit": 2}).json()
    assert first["object"] == "list"
    assert [job["id"] for job in first["data"]] == jobs[:2:-1]
    assert first["has_more"] is True
    second = stack.client.get("/jobs", params={"limit": 2, "after": first["next"]}).json()
    assert [job["id"] for job in second["data"]] == [jobs[2], jobs[1]]


def test_the_list_is_filtered(stack: Stack) -> None:
    job = stack.ended(stack.generate("for the filter")["id"])
    completed = stack.client.get("/jobs", params={"status": "completed", "kind": "generate", "limit": 100}).json()
    assert job["id"] in [found["id"] for found in completed["data"]]
    assert all(found["status"] == "completed" for found in completed["data"])
    refusal = stack.client.get("/jobs", params={"kind": "no such kind"})
    assert (refusal.status_code, refusal.json()["error"]["param"]) == (422, "kind")


def test_jobs_with_a_concurrency_key_run_one_after_the_other(stack: Stack) -> None:
    jobs = [stack.generate(f"limited {number}", concurrency_key="one")["id"] for number in range(6)]
    attempts = [attempt for job in jobs for attempt in stack.ended(job)["attempts"]]
    assert [attempt["outcome"] for attempt in attempts] == ["completed"] * 6
    runs = sorted((attempt["started_at"], attempt["ended_at"]) for attempt in attempts)
    assert all(later >= end for (_, end), (later, _) in itertools.pairwise(runs))


def test_a_running_job_is_cancelled_at_once(slow_stack: Stack) -> None:
    def is_cancelled_quickly() -> bool:
        job = slow_stack.submit_long()
        wait_until(lambda: slow_stack.job(job)["timings"]["first_token"], "the first token")
        answer = slow_stack.client.post(f"/jobs/{job}/cancel")
        assert answer.status_code in (200, 202)
        view = slow_stack.ended(job)
        assert view["status"] == "cancelled"
        return float(view["ended_at"] - view["cancel_requested_at"]) < 0.5

    wait_until(is_cancelled_quickly, "a cancel request reaches the worker much faster than a lease renewal")


def test_a_queued_job_is_cancelled_and_never_runs(slow_stack: Stack) -> None:
    running = slow_stack.run_long(8)
    waiting = slow_stack.generate("never")["id"]
    view = slow_stack.job(waiting)
    assert (view["status"], view["queue_position"], view["waiting_for"]) == ("queued", 1, "worker")
    assert slow_stack.client.post(f"/jobs/{waiting}/cancel").json()["status"] == "cancelled"
    slow_stack.cancel(*running)
    assert slow_stack.ended(slow_stack.generate("a slot is free")["id"])["status"] == "completed"
    assert slow_stack.job(waiting)["attempts"] == []


def test_cancelling_an_ended_job_is_a_conflict(stack: Stack) -> None:
    job = stack.ended(stack.generate("done")["id"])["id"]
    answer = stack.client.post(f"/jobs/{job}/cancel")
    assert answer.status_code == 409
    assert (answer.json()["error"]["code"], answer.json()["error"]["status"]) == ("job_ended", "completed")


def test_an_ended_job_is_deleted_and_a_running_one_is_not(slow_stack: Stack) -> None:
    job = slow_stack.submit_long()
    assert slow_stack.client.delete(f"/jobs/{job}").status_code == 409
    slow_stack.cancel(job)
    assert slow_stack.client.delete(f"/jobs/{job}").json() == {"id": job, "object": "job", "deleted": True}
    assert slow_stack.client.get(f"/jobs/{job}").status_code == 404


def test_a_wait_ends_with_its_timeout(slow_stack: Stack) -> None:
    job = slow_stack.submit_long()
    answer = slow_stack.client.get(f"/jobs/{job}", params={"wait": 1})
    assert answer.json()["status"] in ("queued", "in_progress")
    assert answer.headers["Retry-After"] == "1"
    slow_stack.cancel(job)


def test_an_urgent_job_runs_before_earlier_jobs(slow_stack: Stack) -> None:
    running = slow_stack.run_long(8)
    patient = [slow_stack.generate("p" * 10, priority="batch")["id"] for _ in range(8)]
    urgent = slow_stack.generate("u" * 10, priority="interactive")["id"]
    assert slow_stack.job(urgent)["queue_position"] == 1
    slow_stack.cancel(*running)
    started = slow_stack.ended(urgent)["started_at"]
    for job in patient:
        assert slow_stack.ended(job)["started_at"] >= started
