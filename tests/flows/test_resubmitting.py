"""Idempotency keys, retries and batches."""

from concurrent.futures import ThreadPoolExecutor

from testing.stack import Stack
from testing.waiting import wait_until


def test_the_same_key_and_body_create_one_job(stack: Stack) -> None:
    first = stack.post("/generate", {"prompt": "once"}, **{"Idempotency-Key": "k1"})
    again = stack.post("/generate", {"prompt": "once"}, **{"Idempotency-Key": "k1"})
    assert again.json()["id"] == first.json()["id"]
    assert (first.headers.get("Idempotent-Replay"), again.headers["Idempotent-Replay"]) == (None, "true")
    waited = stack.post("/generate", {"prompt": "once"}, **{"Idempotency-Key": "k1", "Prefer": "wait=20"})
    assert (waited.status_code, waited.json()["result"]["text"]) == (200, "once")


def test_the_same_key_for_another_body_is_a_conflict(stack: Stack) -> None:
    first = stack.post("/generate", {"prompt": "one"}, **{"Idempotency-Key": "k2"}).json()
    answer = stack.post("/generate", {"prompt": "two"}, **{"Idempotency-Key": "k2"})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    assert (answer.json()["error"]["code"], answer.json()["error"]["job"]) == ("idempotency_conflict", first["id"])


def test_concurrent_requests_with_one_key_create_one_job(stack: Stack) -> None:
    def send(_: int) -> str:
        return str(stack.post("/generate", {"prompt": "together"}, **{"Idempotency-Key": "k3"}).json()["id"])

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(send, range(16)))) == 1


def test_a_repeated_upload_is_the_same_batch(stack: Stack) -> None:
    files = [("file", (f"{n}.txt", f"idempotent {n}".encode())) for n in range(3)]
    headers = {"Idempotency-Key": "k4"}
    first = stack.client.post("/collections/again/documents", files=files, headers=headers).json()
    second = stack.client.post("/collections/again/documents", files=files, headers=headers)
    assert second.headers["Idempotent-Replay"] == "true"
    assert second.json()["batch"]["id"] == first["batch"]["id"]
    assert [document["id"] for document in second.json()["data"]] == [document["id"] for document in first["data"]]
    other = stack.client.post("/collections/again/documents", files=files[:1], headers=headers)
    assert other.status_code == 409


def test_a_repeated_reindex_is_one_job(stack: Stack) -> None:
    uploaded = stack.client.post("/collections/rebuilt/documents", files={"file": ("a.txt", b"indexed twice")}).json()
    stack.ended(uploaded["batch"]["id"])
    key = {"Idempotency-Key": "k5"}
    first = stack.post("/collections/rebuilt/reindex", {}, **key)
    again = stack.post("/collections/rebuilt/reindex", {}, **key)
    assert again.json()["id"] == first.json()["id"]
    assert (first.headers.get("Idempotent-Replay"), again.headers["Idempotent-Replay"]) == (None, "true")
    assert stack.ended(first.json()["id"])["status"] == "completed"


def test_a_batch_counts_its_jobs_and_ends_with_the_last(stack: Stack) -> None:
    files = [("file", ("good.txt", b"a good text")), ("file", ("bad.bin", bytes(range(256)))), ("file", ("empty.txt", b""))]
    answer = stack.client.post("/collections/batch/documents", files=files)
    batch = answer.json()["batch"]
    assert answer.headers["Location"] == f"/jobs/{batch['id']}"
    ended = stack.ended(batch["id"])
    assert (ended["kind"], ended["status"]) == ("batch", "completed")
    assert ended["counts"] == {"total": 3, "completed": 1, "failed": 2, "cancelled": 0, "expired": 0}
    children = stack.client.get("/jobs", params={"batch": batch["id"]}).json()["data"]
    assert {child["id"] for child in children} == {document["job"] for document in answer.json()["data"]}


def test_cancelling_a_batch_cancels_its_jobs(stack: Stack) -> None:
    files = [("file", (f"{n}.txt", f"cancelled {n}. ".encode())) for n in range(6)]
    with stack.paused("cpu"):
        batch = stack.client.post("/collections/stopped/documents", files=files).json()["batch"]["id"]
        stack.client.post(f"/jobs/{batch}/cancel")
        ended = stack.ended(batch)
    assert ended["status"] == "cancelled"
    assert ended["counts"] == {"total": 6, "completed": 0, "failed": 0, "cancelled": 6, "expired": 0}


def test_a_retry_runs_an_ended_job_as_a_new_one(stack: Stack) -> None:
    first = stack.ended(stack.generate("again", metadata={"a": "b"})["id"])
    answer = stack.client.post(f"/jobs/{first['id']}/retry")
    assert answer.status_code == 202
    second = stack.ended(answer.json()["id"])
    assert (second["retry_of"], second["result"]["text"], second["metadata"]) == (first["id"], "again", {"a": "b"})
    assert stack.job(first["id"])["status"] == "completed"


def test_retrying_an_ingest_takes_over_its_document(stack: Stack) -> None:
    uploaded = stack.client.post("/collections/retried/documents", files={"file": ("a.txt", b"slow " * 20000)}).json()
    document, job = uploaded["data"][0]["id"], uploaded["data"][0]["job"]
    stack.client.post(f"/jobs/{job}/cancel")
    if stack.ended(job)["status"] == "cancelled":
        assert stack.client.get(f"/documents/{document}").json()["status"] == "failed"
    again = stack.client.post(f"/jobs/{job}/retry").json()["id"]
    assert stack.ended(again)["status"] == "completed"
    assert stack.client.get(f"/documents/{document}").json()["status"] == "ready"


def test_a_running_job_cannot_be_retried(slow_stack: Stack) -> None:
    [job] = slow_stack.run_long(1)
    answer = slow_stack.client.post(f"/jobs/{job}/retry")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_not_ended")
    slow_stack.cancel(job)


def test_a_queued_job_has_an_estimated_wait(slow_stack: Stack) -> None:
    # The estimate uses the times between earlier claims. With eight slots and a second for each job, the last one is queued for fifteen
    # seconds while others are claimed.
    with slow_stack.paused("gpu.echo"):
        jobs = [slow_stack.generate("y" * 20)["id"] for _ in range(120)]
    view = wait_until(
        lambda: next((view for view in [slow_stack.job(jobs[-1])] if view["estimated_wait"]), None),
        "the last job has an estimate",
    )
    assert view is not None
    assert view["status"] == "queued"
    estimate = view["estimated_wait"]
    assert 0 <= estimate["low"] <= estimate["seconds"] <= estimate["high"]
    assert view["queue_position"] >= 1
    slow_stack.cancel(*jobs)
