"""One batch over many uploads: whoever opens it says when no more will come, and its counts are exact whatever happens between."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from testing.stack import Stack

NOTHING = {"total": 0, "completed": 0, "failed": 0, "cancelled": 0, "expired": 0}


def opened(stack: Stack, **headers: str) -> str:
    answer = stack.post("/batches", {"metadata": {"from": "scanner-2"}}, **headers)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert (job["kind"], job["status"], job["counts"], job["sealed"]) == ("batch", "in_progress", NOTHING, False)
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
    told = answer.json()["error"]
    return answer.status_code, told["code"], told["param"]


def test_one_batch_counts_what_many_requests_upload_and_ends_once_it_is_sealed(stack: Stack) -> None:
    batch = opened(stack)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: send(stack, batch, (f"{n}.txt", f"Counted {n}.".encode())), range(12)))
    assert {answer.json()["batch"]["id"] for answer in answers} == {batch}
    assert {stack.ended(answer.json()["data"][0]["job"])["batch"] for answer in answers} == {batch}
    # The same bytes again, under another name: answered with the first document, and no job that a batch would wait for.
    assert send(stack, batch, ("copy.txt", b"Counted 1.")).json()["data"][0]["name"] == "1.txt"
    assert stack.job(batch)["status"] == "in_progress", "more may come"
    ended = seal(stack, batch)
    assert (ended["status"], ended["sealed"], ended["metadata"]) == ("completed", True, {"from": "scanner-2"})
    assert ended["counts"] == ended["result"] == {**NOTHING, "total": 12, "completed": 12}
    assert stack.client.post(f"/jobs/{batch}/seal").status_code == 200


def test_an_upload_that_is_sent_again_adds_no_job_even_if_its_file_could_not_be_read(stack: Stack) -> None:
    batch = opened(stack)
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
    assert seal(stack, batch)["counts"] == {**NOTHING, "total": 3, "completed": 1, "failed": 2}


def test_an_upload_into_a_batch_of_its_own_is_as_exact(stack: Stack) -> None:
    headers, files = {"Idempotency-Key": "own"}, {"file": ("blank.txt", b"\n\n")}
    first = stack.client.post("/collections/open/documents", files=files, headers=headers).json()
    stack.ended(first["batch"]["id"])
    again = stack.client.post("/collections/open/documents", files=files, headers=headers).json()
    assert (again["batch"]["id"], again["data"][0]["id"]) == (first["batch"]["id"], first["data"][0]["id"])


def test_requests_in_flight_together_under_one_key_are_one_document(stack: Stack) -> None:
    batch = opened(stack)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(stack, batch, ("together.txt", b"Sent together."), key="at-once"), range(8)))
    [document] = {answer.json()["data"][0]["id"] for answer in answers}
    assert seal(stack, batch)["counts"] == {**NOTHING, "total": 1, "completed": 1}
    assert stack.client.get(f"/documents/{document}").json()["status"] == "ready"


def test_opening_it_again_with_the_same_key_opens_no_second(stack: Stack) -> None:
    batch = opened(stack, **{"Idempotency-Key": "open-1"})
    again = stack.post("/batches", {"metadata": {"from": "scanner-2"}}, **{"Idempotency-Key": "open-1"})
    assert (again.json()["id"], again.headers["Idempotent-Replay"]) == (batch, "true")
    assert error(stack.post("/batches", {}, **{"Idempotency-Key": "open-1"}))[:2] == (409, "idempotency_conflict")
    assert seal(stack, batch)["counts"] == NOTHING


def test_nothing_joins_what_is_no_open_batch(stack: Stack) -> None:
    file = ("late.txt", b"Too late.")
    generation = stack.generate("no batch")["id"]
    for other in ("job_00000000000000000000000000", "nonsense:events", generation):
        assert error(send(stack, other, file)) == (404, "job_not_found", "batch")
    assert error(stack.client.post(f"/jobs/{generation}/seal"))[:2] == (409, "not_a_batch")
    assert stack.client.post("/jobs/job_00000000000000000000000000/seal").status_code == 404
    batch = opened(stack)
    told = error(send(stack, batch, file, webhook='{"url": "https://1.1.1.1/hook"}'))
    assert told == (422, "invalid_value", "webhook")
    seal(stack, batch)
    answer = send(stack, batch, file)
    assert (*error(answer), answer.json()["error"]["status"]) == (409, "batch_sealed", "batch", "completed")
    assert stack.client.get("/collections/open/documents", params={"limit": 100}).text.count("late.txt") == 0


@pytest.mark.parametrize("jobs", [0, 4])
def test_a_cancelled_batch_takes_its_jobs_along_and_takes_no_more(stack: Stack, jobs: int) -> None:
    batch = opened(stack)
    for number in range(jobs):
        send(stack, batch, (f"long-{number}.txt", f"Long, and cancelled {number}. ".encode() * 3000))
    assert stack.client.post(f"/jobs/{batch}/cancel").status_code in (200, 202)
    assert error(send(stack, batch, ("late.txt", b"Later still.")))[:2] == (409, "batch_sealed")
    ended = stack.ended(batch)
    assert (ended["status"], ended["sealed"], ended["counts"]["total"]) == ("cancelled", True, jobs)
    assert sum(ended["counts"].values()) == 2 * jobs
