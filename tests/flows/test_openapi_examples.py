"""Every example of ``/openapi.json`` is sent, and every answer is held against the shape that the document promises."""

import json
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter

from api.operations import OPERATIONS
from api.operations.gpus import GPU
from api.operations.operation import COLLECTION, DOCUMENT, JOB, SESSION, Operation
from api.operations.webhooks import DELIVERY, WEBHOOK
from api.schemas import responses
from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.test_events import TEXT, lines

BODIES = [(operation, name) for operation in OPERATIONS for name in operation.examples]
READS = [operation for operation in OPERATIONS if operation.method == "get"]


def checked(operation: Operation, answer: httpx2.Response) -> Any:
    """What was answered, which must be as described; refusals too."""
    status = answer.status_code
    if status not in operation.replies:
        assert status in operation.statuses, (operation.call, status, answer.text)
        responses.ErrorAnswer.model_validate_json(answer.text)
        return answer.json()
    reply = operation.replies[status]
    assert answer.headers.get("Content-Type", "").startswith(reply.media_type.removesuffix("*/*")), answer.headers
    if reply.model is not None and reply.media_type == "application/json":
        shape: Any = list[reply.model] if reply.many else reply.model  # type: ignore[name-defined]
        TypeAdapter(shape).validate_json(answer.text)
        return answer.json()
    return answer.text


def call(stack: Stack, call: str, path: str = "", **options: Any) -> Any:
    """Make a call that must not be refused."""
    [operation] = [operation for operation in OPERATIONS if operation.call == call]
    answer = stack.client.request(operation.method, path or operation.path, **options)
    assert answer.status_code in operation.replies, answer.text
    return checked(operation, answer)


@pytest.fixture(scope="module")
def things(slow_stack: Stack) -> dict[str, str]:
    """What the examples speak of: the parameter's name, and the id of one that is there."""
    stack = slow_stack
    files = {"file": ("opening-hours.txt", b"The archive is open on weekdays from nine to five.")}
    taken = stack.client.post("/collections/handbook/documents", files=files).json()
    # Nobody listens there.
    job = stack.generate("an example", webhook={"url": "http://127.0.0.1:9/"})["id"]
    kept = stack.post("/webhooks", {"url": "http://127.0.0.1:9/", "events": ["job.expired"]}).json()["id"]
    stack.post("/chat/start", {"sessionId": SESSION.example})
    stack.ended(taken["batch"]["id"])
    stack.ended(job)
    document = taken["data"][0]["id"]
    return {
        JOB.name: job,
        DOCUMENT.name: document,
        COLLECTION.name: "handbook",
        SESSION.name: SESSION.example,
        GPU.name: GPU.example,
        WEBHOOK.name: kept,
        DELIVERY.name: stack.client.get(f"/jobs/{job}/deliveries").json()["data"][0]["id"],
        "name": "mark.svg",
    }


def path_of(operation: Operation, things: dict[str, str]) -> str:
    return operation.path.format(**things)


@pytest.mark.parametrize(("operation", "name"), BODIES, ids=[f"{operation.call} {name}" for operation, name in BODIES])
def test_a_body_that_is_shown_works(slow_stack: Stack, things: dict[str, str], operation: Operation, name: str) -> None:
    example = operation.examples[name]
    path = path_of(operation, things)
    if operation.body is None:
        answer = slow_stack.client.post(path, files={"file": ("example.txt", example.body.encode())})
    else:
        answer = slow_stack.client.request(operation.method, path, json=example.body)
    assert answer.status_code in operation.replies, answer.text
    told = checked(operation, answer)
    if answer.status_code == 202 and told.get("object") == "job":
        ended = call(slow_stack, "GET /jobs/{job}", f"/jobs/{told['id']}", params={"wait": 60})
        assert ended["status"] == "completed"
    if told.get("object") == "gpu":
        # Its model comes back with the next job, on which all that follows relies.
        slow_stack.ended(slow_stack.generate("come back")["id"])


@pytest.mark.parametrize("operation", READS, ids=lambda operation: str(operation.call))
def test_what_is_read_has_the_shape_that_is_shown(slow_stack: Stack, things: dict[str, str], operation: Operation) -> None:
    values = {item.name: item.example for item in operation.parameters if item.where == "query" and item.example is not None}
    headers = {item.name: item.example for item in operation.parameters if item.where == "header" and item.example is not None}
    answer = slow_stack.client.get(path_of(operation, things), params=values, headers=headers)
    assert answer.status_code in operation.replies, answer.text
    checked(operation, answer)


def test_a_job_has_its_shape_at_every_moment_of_its_life(slow_stack: Stack) -> None:
    jobs = [slow_stack.generate(TEXT, metadata={"n": str(n)})["id"] for n in range(12)]
    views = [call(slow_stack, "GET /jobs/{job}", f"/jobs/{job}") for job in jobs]
    assert views[-1]["status"] == "queued", "eight run at once"
    assert views[-1]["queue_position"] >= 1
    assert call(slow_stack, "POST /jobs/{job}/cancel", f"/jobs/{jobs[-1]}/cancel")["status"] == "cancelled"
    wait_until(lambda: slow_stack.job(jobs[0])["status"] == "in_progress", "the first of them runs")
    running = jobs[0]
    call(slow_stack, "GET /jobs/{job}", f"/jobs/{running}")
    assert call(slow_stack, "POST /jobs/{job}/cancel", f"/jobs/{running}/cancel")["cancel_requested_at"]
    for job in jobs:
        slow_stack.ended(job)
    call(slow_stack, "GET /jobs", params={"limit": 100})
    assert call(slow_stack, "POST /jobs/{job}/retry", f"/jobs/{jobs[-1]}/retry")["retry_of"] == jobs[-1]
    assert call(slow_stack, "DELETE /jobs/{job}", f"/jobs/{jobs[0]}")["deleted"] is True


def test_what_fails_has_its_shape_too(slow_stack: Stack) -> None:
    failed = slow_stack.ended(slow_stack.generate("x" * 9000)["id"])
    assert call(slow_stack, "GET /jobs/{job}", f"/jobs/{failed['id']}")["error"]["code"] == "prompt_too_long"
    files = [("file", ("good.txt", b"some text")), ("file", ("bad.pdf", b"%PDF-1.7\nnothing more"))]
    batch = call(slow_stack, "POST /collections/{collection}/documents", "/collections/mixed/documents", files=files)["batch"]
    slow_stack.ended(batch["id"])
    assert call(slow_stack, "GET /jobs/{job}", f"/jobs/{batch['id']}")["counts"]["failed"] == 1
    call(slow_stack, "GET /jobs", params={"batch": batch["id"]})
    call(slow_stack, "GET /collections/{collection}/documents", "/collections/mixed/documents")
    call(slow_stack, "DELETE /collections/{collection}", "/collections/mixed")


def test_a_batch_has_its_shape_from_its_opening_to_its_end(slow_stack: Stack) -> None:
    batch = call(slow_stack, "POST /batches")["id"]
    upload = "POST /collections/{collection}/documents"
    files = {"file": ("joined.txt", b"some text that joins")}
    call(slow_stack, upload, "/collections/joined/documents", files=files, params={"batch": batch})
    assert call(slow_stack, "GET /jobs/{job}", f"/jobs/{batch}")["sealed"] is False
    assert call(slow_stack, "POST /jobs/{job}/seal", f"/jobs/{batch}/seal")["sealed"] is True
    slow_stack.ended(batch)
    assert call(slow_stack, "POST /jobs/{job}/seal", f"/jobs/{batch}/seal")["status"] == "completed"


@pytest.mark.parametrize("body", [{"prompt": TEXT}, {"prompt": TEXT, "collection": "handbook"}], ids=["plain", "retrieval"])
def test_every_event_has_its_shape(slow_stack: Stack, things: dict[str, str], body: dict[str, Any]) -> None:
    job = slow_stack.post("/generate", body).json()["id"]
    with slow_stack.client.stream("GET", f"/jobs/{job}/events", timeout=60) as answer:
        events = list(lines(answer))
    assert {"queued", "started", "delta", "ended"} <= {event["event"] for event in events}
    for event in events:
        responses.StreamEvent.model_validate({**event, "data": json.dumps(event["data"])})
        responses.EventData.model_validate_json(json.dumps(event["data"]))


def test_a_refusal_has_its_shape(slow_stack: Stack) -> None:
    for operation in OPERATIONS:
        missing = {
            "job": "job_nope",
            "document": "doc_nope",
            "webhook": "whk_nope",
            "delivery": "dlv_nope",
            "gpu": "99",
            "chunk": "doc_nope:0",
        }
        path = operation.path.format(**missing, collection="no-such", session="nope", name="nope", position="0")
        if "{" in operation.path and not operation.files:
            answer = slow_stack.client.request(operation.method, path, json={"query": "x"} if operation.body else None)
            assert answer.status_code == 404, operation.call
            checked(operation, answer)
