"""Every example of ``/openapi.json`` works, and every answer matches the schema that the document promises."""

import json
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter

from api.app import create_app
from api.openai.vector_store_parameters import STORE
from api.openapi.operation import COLLECTION, DELIVERY, DOCUMENT, GPU, JOB, SESSION, WEBHOOK, Operation
from api.routes.document_pages import PAGE
from api.routes.openai.batches import BATCH, INPUT
from api.routes.openai.conversations import CONVERSATION, ITEM
from api.routes.openai.files import FILE, REQUEST
from api.routes.openai.models import MODEL
from api.routes.openai.responses import RESPONSE
from api.routes.openai.vector_store_batches import BATCH as FILE_BATCH
from api.routes.owners import OWNER
from api.routes.queues import QUEUE, WORKER
from api.routes.web_ui import ASSETS
from api.schemas import responses
from shared.settings import Settings
from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.test_events import TEXT, lines
from tests.odd_files import pdf

OPERATIONS: list[Operation] = create_app(Settings()).extensions["openapi"].operations
# A first API key would close the server to all other tests: redis/test_api_keys.py makes these calls.
SHARED = [operation for operation in OPERATIONS if not operation.path.startswith("/admin/keys")]
BODIES = [(operation, name) for operation in SHARED for name in operation.examples]
READS = [operation for operation in SHARED if operation.method == "get"]


def checked(operation: Operation, answer: httpx2.Response) -> Any:
    """The answer, once it is checked against its description. Errors are checked too."""
    status = answer.status_code
    if status not in operation.replies:
        assert status in operation.error_statuses, (operation.call, status, answer.text)
        responses.ErrorResponse.model_validate_json(answer.text)
        return answer.json()
    reply = operation.replies[status]
    assert answer.headers.get("Content-Type", "").startswith(reply.media_type.removesuffix("*/*")), answer.headers
    if reply.model is not None and reply.media_type == "application/json":
        schema: Any = list[reply.model] if reply.many else reply.model  # type: ignore[name-defined]
        TypeAdapter(schema).validate_json(answer.text)
        return answer.json()
    return answer.text


def call(stack: Stack, call: str, path: str = "", **options: Any) -> Any:
    """Make a call that must succeed."""
    [operation] = [operation for operation in OPERATIONS if operation.call == call]
    answer = stack.client.request(operation.method, path or operation.path, **options)
    assert answer.status_code in operation.replies, answer.text
    return checked(operation, answer)


@pytest.fixture(scope="module")
def example_ids(slow_stack: Stack) -> dict[str, str]:
    """An existing object for each path parameter of the examples, by parameter name."""
    stack = slow_stack
    files = {"file": ("opening-hours.pdf", pdf("The archive is open on weekdays from nine to five."))}
    uploaded = stack.client.post("/collections/handbook/documents", files=files).json()
    # Nothing listens on this port.
    job = stack.generate("an example", webhook={"url": "http://127.0.0.1:9/"})["id"]
    webhook = stack.post("/webhooks", {"url": "http://127.0.0.1:9/", "events": ["job.expired"]}).json()["id"]
    turn = stack.post("/chat", {"session": SESSION.example, "message": "an example"}).json()["turn"]["id"]
    stack.ended(uploaded["batch"]["id"])
    stack.post("/collections", {"name": "archive"})
    stack.ended(job)
    document = uploaded["data"][0]["id"]
    requests = {"file": ("requests.jsonl", REQUEST.encode())}
    file = stack.client.post("/v1/files", files=requests, data={"purpose": "batch"}).json()["id"]
    batch = stack.post("/v1/batches", {**INPUT, "input_file_id": file}).json()
    stack.ended(batch["job_id"])
    store = stack.post("/v1/vector_stores", {"name": "examples"}).json()["id"]
    conversation = stack.post("/v1/conversations", {"items": [{"role": "user", "content": "an example"}]}).json()["id"]
    file_batch = stack.post(f"/v1/vector_stores/{store}/file_batches", {"file_ids": [file]}).json()
    stack.ended(file_batch["job_id"])
    return {
        STORE.name: store,
        FILE_BATCH.name: file_batch["id"],
        CONVERSATION.name: conversation,
        ITEM.name: stack.client.get(f"/v1/conversations/{conversation}/items").json()["data"][0]["id"],
        JOB.name: job,
        DOCUMENT.name: document,
        COLLECTION.name: "handbook",
        PAGE.name: PAGE.example,
        SESSION.name: SESSION.example,
        "turn": turn,
        GPU.name: GPU.example,
        WEBHOOK.name: webhook,
        DELIVERY.name: stack.client.get(f"/jobs/{job}/deliveries").json()["data"][0]["id"],
        "name": "mark.svg",
        "view": "jobs",
        "asset": next(iter(ASSETS)),
        MODEL.name: MODEL.example,
        FILE.name: file,
        BATCH.name: batch["id"],
        RESPONSE.name: stack.post("/v1/responses", {"input": "an example"}).json()["id"],
        QUEUE.name: QUEUE.example,
        OWNER.name: OWNER.example,
        WORKER.name: next(entry["name"] for entry in stack.client.get("/admin/workers").json()["data"] if entry["pool"] == "gpu"),
    }


def example_path(operation: Operation, example_ids: dict[str, str]) -> str:
    return operation.path.format(**example_ids)


@pytest.mark.parametrize(("operation", "name"), BODIES, ids=[f"{operation.call} {name}" for operation, name in BODIES])
def test_example_bodies_work(slow_stack: Stack, example_ids: dict[str, str], operation: Operation, name: str) -> None:
    example = operation.examples[name]
    path = example_path(operation, example_ids)
    if operation.request_model is None:
        files = {"file": ("example.txt", example.body.encode())}
        answer = slow_stack.client.post(path, files=files, data=operation.form_values)
    else:
        file = example_ids[FILE.name]
        files = {"input_file_id": file, "file_id": file, "file_ids": [file]}
        body = example.body | {name: value for name, value in files.items() if name in example.body}
        answer = slow_stack.client.request(operation.method, path, json=body)
    assert answer.status_code in operation.replies, answer.text
    body = checked(operation, answer)
    if answer.status_code == 202 and body.get("object") == "job":
        ended = call(slow_stack, "GET /jobs/{job}", f"/jobs/{body['id']}", params={"wait": 60})
        assert ended["status"] == "completed"
    if body.get("object") == "queue":
        call(slow_stack, operation.call, path, json={"paused": False})
    if body.get("object") == "gpu":
        # The next job loads its model again, which the following tests need.
        slow_stack.ended(slow_stack.generate("come back")["id"])


@pytest.mark.parametrize("operation", READS, ids=lambda operation: str(operation.call))
def test_answers_of_reads_match_their_schemas(slow_stack: Stack, example_ids: dict[str, str], operation: Operation) -> None:
    values = {item.name: item.example for item in operation.parameters if item.location == "query" and item.example is not None}
    headers = {item.name: item.example for item in operation.parameters if item.location == "header" and item.example is not None}
    answer = slow_stack.client.get(example_path(operation, example_ids), params=values, headers=headers)
    assert answer.status_code in operation.replies, answer.text
    checked(operation, answer)


def test_a_job_matches_its_schema_in_every_status(slow_stack: Stack) -> None:
    jobs = [slow_stack.submit_long(metadata={"n": str(n)}) for n in range(12)]
    views = [call(slow_stack, "GET /jobs/{job}", f"/jobs/{job}") for job in jobs]
    assert views[-1]["status"] == "queued", "eight jobs run at once"
    assert views[-1]["queue_position"] >= 1
    assert call(slow_stack, "POST /jobs/{job}/cancel", f"/jobs/{jobs[-1]}/cancel")["status"] == "cancelled"
    wait_until(lambda: slow_stack.job(jobs[0])["status"] == "in_progress", "the first job runs")
    running = jobs[0]
    call(slow_stack, "GET /jobs/{job}", f"/jobs/{running}")
    assert call(slow_stack, "POST /jobs/{job}/cancel", f"/jobs/{running}/cancel")["cancel_requested_at"]
    slow_stack.cancel(*jobs[1:])
    slow_stack.ended(running)
    call(slow_stack, "GET /jobs", params={"limit": 100})
    assert call(slow_stack, "POST /jobs/{job}/retry", f"/jobs/{jobs[-1]}/retry")["retry_of"] == jobs[-1]
    assert call(slow_stack, "DELETE /jobs/{job}", f"/jobs/{jobs[0]}")["deleted"] is True


def test_a_failed_job_matches_its_schema(slow_stack: Stack) -> None:
    failed = slow_stack.ended(slow_stack.generate("x" * 9000)["id"])
    assert call(slow_stack, "GET /jobs/{job}", f"/jobs/{failed['id']}")["error"]["code"] == "prompt_too_long"
    files = [("file", ("good.txt", b"some text")), ("file", ("bad.pdf", b"%PDF-1.7\nnothing more"))]
    batch = call(slow_stack, "POST /collections/{collection}/documents", "/collections/mixed/documents", files=files)["batch"]
    slow_stack.ended(batch["id"])
    assert call(slow_stack, "GET /jobs/{job}", f"/jobs/{batch['id']}")["counts"]["failed"] == 1
    call(slow_stack, "GET /jobs", params={"batch": batch["id"]})
    call(slow_stack, "GET /collections/{collection}/documents", "/collections/mixed/documents")
    call(slow_stack, "DELETE /collections/{collection}", "/collections/mixed")


def test_a_batch_matches_its_schema_from_opening_to_end(slow_stack: Stack) -> None:
    batch = call(slow_stack, "POST /batches")["id"]
    upload = "POST /collections/{collection}/documents"
    files = {"file": ("joined.txt", b"some text that joins")}
    call(slow_stack, upload, "/collections/joined/documents", files=files, params={"batch": batch})
    assert call(slow_stack, "GET /jobs/{job}", f"/jobs/{batch}")["sealed"] is False
    assert call(slow_stack, "POST /jobs/{job}/seal", f"/jobs/{batch}/seal")["sealed"] is True
    slow_stack.ended(batch)
    assert call(slow_stack, "POST /jobs/{job}/seal", f"/jobs/{batch}/seal")["status"] == "completed"


@pytest.mark.parametrize("body", [{"prompt": TEXT}, {"prompt": TEXT, "collection": "handbook"}], ids=["plain", "retrieval"])
def test_every_event_matches_its_schema(slow_stack: Stack, example_ids: dict[str, str], body: dict[str, Any]) -> None:
    job = slow_stack.post("/generate", body).json()["id"]
    with slow_stack.client.stream("GET", f"/jobs/{job}/events", timeout=240) as answer:
        events = list(lines(answer))
    assert {"queued", "started", "delta", "ended"} <= {event["event"] for event in events}
    for event in events:
        responses.StreamEvent.model_validate({**event, "data": json.dumps(event["data"])})
        responses.EventData.model_validate_json(json.dumps(event["data"]))


def test_every_error_matches_its_schema(slow_stack: Stack) -> None:
    for operation in SHARED:
        missing = {
            "job": "job_nope",
            "turn": "job_nope",
            "document": "doc_nope",
            "page": "1",
            "webhook": "whk_nope",
            "delivery": "dlv_nope",
            "gpu": "99",
            "model": "nope",
            "queue": "nope",
            "worker": "nope",
            "chunk": "doc_nope:0",
            "response": "resp_nope",
            "file": "file-nope",
            "batch": "batch_nope",
            "store": "vs_nope",
            "conversation": "conv_nope",
            "item": "msg_nope",
            "file_batch": "vsfb_nope",
            "view": "nope",
            "asset": "nope",
        }
        if "{owner}" in operation.path:
            continue  # any name may be that of an owner
        path = operation.path.format(**missing, collection="no-such", session="nope", name="nope", position="0")
        if "{" in operation.path and not operation.files:
            body = next((example.body for example in operation.examples.values()), {"query": "x"})
            answer = slow_stack.client.request(operation.method, path, json=body if operation.request_model else None)
            assert answer.status_code == 404, operation.call
            checked(operation, answer)
