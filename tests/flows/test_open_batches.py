"""One batch counts many uploads. It ends once it is sealed, and its counts are exact."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from testing.stack import Stack

EMPTY = {"total": 0, "completed": 0, "failed": 0, "cancelled": 0, "expired": 0}


def open_batch(stack: Stack, **headers: str) -> str:
    answer = stack.post("/batches", {"metadata": {"from": "scanner-2"}}, **headers)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["kind"], job["status"], job["counts"], job["sealed"]) == ("batch", "in_progress", EMPTY, False)
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    return str(job["id"])


def send(stack: Stack, batch: str, *files: tuple[str, bytes], key: str = "", **form: str) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key else {}
    parts = [("file", file) for file in files]
    return stack.client.post("/collections/open/documents", params={"batch": batch}, files=parts, headers=headers, data=form)


def seal(stack: Stack, batch: str) -> dict[str, Any]:
    assert stack.client.post(f"/jobs/{batch}/seal").status_code in (200, 202)
    return stack.ended(batch)


def error(answer: httpx2.Response) -> tuple[int, str, str | None]:
    body = answer.json()["error"]
    return answer.status_code, body["code"], body["param"]


def test_a_batch_counts_the_uploads_of_many_requests_and_ends_once_sealed(stack: Stack) -> None:
    batch = open_batch(stack)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: send(stack, batch, (f"{n}.txt", f"Counted {n}.".encode())), range(12)))
    assert {answer.json()["batch"]["id"] for answer in answers} == {batch}
    assert {stack.ended(answer.json()["data"][0]["job"])["batch"] for answer in answers} == {batch}
    # The same bytes under another name are answered with the first document and create no job for the batch.
    assert send(stack, batch, ("copy.txt", b"Counted 1.")).json()["data"][0]["name"] == "1.txt"
    assert stack.job(batch)["status"] == "in_progress", "an open batch does not end"
    ended = seal(stack, batch)
    assert (ended["status"], ended["sealed"], ended["metadata"]) == ("completed", True, {"from": "scanner-2"})
    assert ended["counts"] == ended["result"] == {**EMPTY, "total": 12, "completed": 12}
    assert stack.client.post(f"/jobs/{batch}/seal").status_code == 200


def test_a_repeated_upload_adds_no_job_even_if_a_file_cannot_be_read(stack: Stack) -> None:
    batch = open_batch(stack)
    files = (("blank.txt", b"   "), ("broken.pdf", b"%PDF-1.7\nnothing of it"), ("fine.txt", b"Fine, and sent three times."))
    first = send(stack, batch, *files, key="same").json()
    jobs = [document["job"] for document in first["data"]]
    assert [stack.ended(job)["status"] for job in jobs] == ["failed", "failed", "completed"]
    for _ in range(2):
        again = send(stack, batch, *files, key="same").json()
        assert [(document["id"], document["job"]) for document in again["data"]] == [
            (document["id"], document["job"]) for document in first["data"]
        ]
    assert error(send(stack, batch, *files[:2], key="same"))[:2] == (409, "idempotency_conflict")
    assert seal(stack, batch)["counts"] == {**EMPTY, "total": 3, "completed": 1, "failed": 2}


def test_a_repeated_upload_without_an_open_batch_adds_no_job(stack: Stack) -> None:
    headers, files = {"Idempotency-Key": "own"}, {"file": ("blank.txt", b"\n\n")}
    first = stack.client.post("/collections/open/documents", files=files, headers=headers).json()
    stack.ended(first["batch"]["id"])
    again = stack.client.post("/collections/open/documents", files=files, headers=headers).json()
    assert (again["batch"]["id"], again["data"][0]["id"]) == (first["batch"]["id"], first["data"][0]["id"])


def test_concurrent_requests_with_one_key_are_one_document(stack: Stack) -> None:
    batch = open_batch(stack)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(stack, batch, ("together.txt", b"Sent together."), key="at-once"), range(8)))
    [document] = {answer.json()["data"][0]["id"] for answer in answers}
    assert seal(stack, batch)["counts"] == {**EMPTY, "total": 1, "completed": 1}
    assert stack.client.get(f"/documents/{document}").json()["status"] == "ready"


def test_opening_a_batch_twice_with_one_key_opens_one(stack: Stack) -> None:
    batch = open_batch(stack, **{"Idempotency-Key": "open-1"})
    again = stack.post("/batches", {"metadata": {"from": "scanner-2"}}, **{"Idempotency-Key": "open-1"})
    assert (again.json()["id"], again.headers["Idempotent-Replay"]) == (batch, "true")
    assert error(stack.post("/batches", {}, **{"Idempotency-Key": "open-1"}))[:2] == (409, "idempotency_conflict")
    assert seal(stack, batch)["counts"] == EMPTY


def test_only_an_open_batch_can_be_joined(stack: Stack) -> None:
    file = ("late.txt", b"Too late.")
    generation = stack.generate("no batch")["id"]
    for other in ("job_00000000000000000000000000", "nonsense:events", generation):
        assert error(send(stack, other, file)) == (404, "job_not_found", "batch")
    assert error(stack.client.post(f"/jobs/{generation}/seal"))[:2] == (409, "not_a_batch")
    assert stack.client.post("/jobs/job_00000000000000000000000000/seal").status_code == 404
    batch = open_batch(stack)
    refusal = error(send(stack, batch, file, webhook='{"url": "https://1.1.1.1/hook"}'))
    assert refusal == (422, "invalid_value", "webhook")
    seal(stack, batch)
    answer = send(stack, batch, file)
    assert (*error(answer), answer.json()["error"]["status"]) == (409, "batch_sealed", "batch", "completed")
    assert stack.client.get("/collections/open/documents", params={"limit": 100}).text.count("late.txt") == 0


@pytest.mark.parametrize("jobs", [0, 4])
def test_cancelling_a_batch_cancels_its_jobs_and_closes_it(stack: Stack, jobs: int) -> None:
    batch = open_batch(stack)
    for number in range(jobs):
        send(stack, batch, (f"long-{number}.txt", f"Long, and cancelled {number}. ".encode() * 3000))
    assert stack.client.post(f"/jobs/{batch}/cancel").status_code in (200, 202)
    assert error(send(stack, batch, ("late.txt", b"Later still.")))[:2] == (409, "batch_sealed")
    ended = stack.ended(batch)
    assert (ended["status"], ended["sealed"], ended["counts"]["total"]) == ("cancelled", True, jobs)
    assert sum(ended["counts"].values()) == 2 * jobs
