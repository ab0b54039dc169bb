"""OpenAI's own client uploads files, runs batches on each call that a batch may have, follows, lists and cancels them."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch, FileDeleted, FileObject

from enginehouse_client import Client
from testing.receiver import Receiver
from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.command import run
from tests.flows.openai.conftest import LONG, user

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES = "/v1/responses"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "echo", "max_tokens": 5, "messages": user("one two")},
    COMPLETIONS: {"model": "echo", "max_tokens": 5, "prompt": "one two", "n": 2},
    EMBEDDINGS: {"model": "hash", "input": ["one", "two"]},
    RESPONSES: {"model": "echo", "max_output_tokens": 16, "input": "one two"},
}
# What is the same in each answer to the same request.
SAME = ("object", "model", "choices", "data", "usage")


def lines(endpoint: str, bodies: list[dict[str, Any]]) -> bytes:
    requests = (
        {"custom_id": f"r{number}", "method": "POST", "url": endpoint, "body": body} for number, body in enumerate(bodies)
    )
    return "\n".join(map(json.dumps, requests)).encode()


def submit(client: openai.OpenAI, endpoint: str, bodies: list[dict[str, Any]], **fields: Any) -> Batch:
    file = client.files.create(file=("in.jsonl", lines(endpoint, bodies)), purpose="batch")
    return client.batches.create(
        **{"input_file_id": file.id, "endpoint": endpoint, "completion_window": "24h", **fields}  # type: ignore[arg-type]
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    final = ("completed", "failed", "expired", "cancelled")
    wait_until(lambda: client.batches.retrieve(batch.id).status in final, f"batch {batch.id} has ended", every=0.05)
    return client.batches.retrieve(batch.id)


def content(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    """The entries of a file by their custom_id."""
    if file is None:
        return {}
    entries = [json.loads(text) for text in client.files.content(file).text.splitlines()]
    assert len({entry["custom_id"] for entry in entries}) == len(entries)
    return {entry["custom_id"]: entry for entry in entries}


def test_files(client: openai.OpenAI, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    files = [
        client.files.create(
            file=(f"{number}.bin", data), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        for number in range(5)
    ]
    assert all(isinstance(file, FileObject) and file.bytes == len(data) for file in files)
    assert client.files.retrieve(files[0].id) == files[0]
    listed = list(client.files.list(purpose="user_data", limit=2))
    assert [file.id for file in listed] == [file.id for file in files[::-1]]
    assert [file.id for file in client.files.list(purpose="user_data", order="asc")] == [file.id for file in files]
    with client.files.with_streaming_response.content(files[0].id) as answer:
        answer.stream_to_file(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    for file in files:
        assert isinstance(client.files.delete(file.id), FileDeleted)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(files[0].id)


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_batch_answers_as_the_call_does(endpoint: str, client: openai.OpenAI) -> None:
    body = BODIES[endpoint]
    batch = submit(client, endpoint, [body, {**body, "model": "no such model"}, {**body, "user": "ada", "unknown": 1}])
    assert batch.status in ("validating", "in_progress")
    batch = ended(client, batch)
    assert (batch.status, batch.request_counts and batch.request_counts.model_dump()) == (
        "completed",
        {"total": 3, "completed": 2, "failed": 1},
    )
    found, errors = content(client, batch.output_file_id), content(client, batch.error_file_id)
    direct = client.post(endpoint.removeprefix("/v1"), body=body, cast_to=object)
    assert isinstance(direct, dict)
    for custom_id in ("r0", "r2"):
        answer = found[custom_id]["response"]["body"]
        assert {name: answer.get(name) for name in SAME} == {name: direct.get(name) for name in SAME}
        if endpoint == RESPONSES:
            assert answer["output"][0]["content"] == direct["output"][0]["content"]
            assert answer["store"] is False
    assert errors["r1"]["response"]["status_code"] == 404
    assert errors["r1"]["response"]["body"]["error"]["code"] == "model_not_found"
    assert batch.usage
    usage = direct["usage"]
    assert batch.usage.input_tokens == 2 * usage.get("prompt_tokens", usage.get("input_tokens"))
    assert client.files.retrieve(batch.output_file_id or "").purpose == "batch_output"
    assert batch.id in [listed.id for listed in client.batches.list(limit=1)]


def test_invalid_lines_and_fields(client: openai.OpenAI) -> None:
    batch = ended(client, submit(client, COMPLETIONS, [{"prompt": "x"}] * 2, completion_window="1h"))
    assert batch.status == "completed"
    file = client.files.create(file=("in.jsonl", lines(CHAT, [{}]) + b"\n" + b"{"), purpose="batch")
    batch = ended(client, client.batches.create(input_file_id=file.id, endpoint=COMPLETIONS, completion_window="24h"))
    assert batch.status == "failed"
    assert [(error.line, error.code) for error in (batch.errors and batch.errors.data) or ()] == [
        (1, "mismatched_url"),
        (2, "invalid_json_line"),
    ]
    with pytest.raises(openai.NotFoundError):
        client.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id=file.id, endpoint="/v1/moderations", completion_window="24h")


def test_a_batch_can_be_cancelled(client: openai.OpenAI, v1_stack: Stack) -> None:
    batch = submit(client, CHAT, [{"messages": user("x"), "max_tokens": 1}] * 4 + [dict(LONG) for _ in range(20)])
    wait_until(
        lambda: (client.batches.retrieve(batch.id).request_counts or batch.request_counts).completed == 4, "the short ones"
    )  # type: ignore[union-attr]
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = ended(client, batch)
    assert (batch.status, batch.cancelled_at is not None) == ("cancelled", True)
    assert len(content(client, batch.output_file_id)) == 4
    errors = content(client, batch.error_file_id)
    assert [entry["error"]["code"] for entry in errors.values()] == ["batch_cancelled"] * 20
    running = v1_stack.client.get("/jobs", params={"status": "in_progress"}).json()["data"]
    assert running == []


def test_a_batch_expires_and_keeps_its_answers(client: openai.OpenAI) -> None:
    # The long ones take several times as long as the window, and the short ones a moment of it.
    bodies = [{"messages": user("x"), "max_tokens": 1}] * 4 + [dict(LONG) for _ in range(100)]
    batch = ended(client, submit(client, CHAT, bodies, completion_window="6s"))
    assert (batch.status, batch.expired_at is not None) == ("expired", True)
    answered, expired = content(client, batch.output_file_id), content(client, batch.error_file_id)
    assert answered
    assert expired
    assert not answered.keys() & expired.keys()
    assert answered.keys() | expired.keys() == {f"r{number}" for number in range(104)}
    assert {entry["error"]["code"] for entry in expired.values()} == {"batch_expired"}


def test_the_end_of_a_batch_is_announced(client: openai.OpenAI, v1_stack: Stack) -> None:
    with Receiver() as receiver:
        hook = v1_stack.post(
            "/webhooks",
            {
                "url": receiver.url,
                "events": ["batch.completed", "batch.failed", "job.completed"],
                "job_kinds": ["request_batch", "generate"],
            },
        ).json()
        try:
            batch = ended(client, submit(client, COMPLETIONS, [{"prompt": "x"}] * 30))
            wait_until(lambda: len(receiver.received) >= 2, "both events")
        finally:
            v1_stack.client.delete(f"/webhooks/{hook['id']}")
    events = [json.loads(request.body) for request in receiver.received]
    [openai_event] = [event for event in events if event["type"] == "batch.completed"]
    assert (openai_event["object"], openai_event["data"]) == ("event", {"id": batch.id})
    native = [event for event in events if event["type"] == "job.completed"]
    assert [event["data"]["kind"] for event in native] == ["request_batch"], "not one for each request"


def test_native_view_of_a_batch(client: openai.OpenAI, v1_stack: Stack) -> None:
    batch = submit(client, CHAT, [{"messages": user("word " * 40), "max_tokens": 100}] * 80)
    job = str((batch.model_extra or {})["job_id"])
    wait_until(lambda: v1_stack.job(job).get("estimated_end_at"), "an estimate")
    batch = ended(client, batch)
    view = v1_stack.job(job)
    assert (view["status"], view["request_counts"]["completed"], view["request_batch"]) == ("completed", 80, batch.id)
    events = v1_stack.client.get(f"/jobs/{job}/events").text
    assert '"unit":"requests"' in events.replace(" ", "")
    assert v1_stack.post(f"/jobs/{job}/retry", {}).json()["error"]["code"] == "batch_not_retried"


@pytest.fixture
def requests_file(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(lines(COMPLETIONS, [{"prompt": f"p{number}", "max_tokens": 3} for number in range(20)]))
    return path


def test_the_command(v1_stack: Stack, requests_file: Path, tmp_path: Path) -> None:
    done = run(v1_stack, "batch", "submit", requests_file, "--wait", "--metadata", "order=17")
    answers = [json.loads(text) for text in done.stdout.splitlines()]
    assert (done.returncode, len(answers)) == (0, 20), done.stderr
    assert "20 of 20 requests are answered" in done.stderr
    id = run(v1_stack, "batch", "submit", requests_file).stdout.strip()
    status = run(v1_stack, "batch", "status", id, "--wait", "--json")
    assert (status.returncode, json.loads(status.stdout)["status"]) == (0, "completed")
    assert len(run(v1_stack, "batch", "results", id).stdout.splitlines()) == 20
    assert id in run(v1_stack, "batch").stdout
    refused = run(v1_stack, "batch", "cancel", id)
    assert (refused.returncode, "completed" in refused.stderr) == (1, True)
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(requests_file.read_bytes() + b"\n{}")
    failed = run(v1_stack, "batch", "submit", bad, "--wait")
    assert (failed.returncode, failed.stdout) == (3, "")
    assert "line 21: Missing required parameter: 'custom_id'." in failed.stderr
    bad.write_text("no JSON")
    assert "has no url" in run(v1_stack, "batch", "submit", bad).stderr


def test_the_client(v1_stack: Stack, requests_file: Path) -> None:
    with Client(v1_stack.url) as client:
        batch = client.submit_requests(requests_file, metadata={"a": "b"})
        polled: list[str] = []
        batch = client.wait_for_requests(batch, on_poll=lambda found: polled.append(found.status))
        assert (batch.status, polled[-1], batch.metadata) == ("completed", "completed", {"a": "b"})
        results = list(client.request_results(batch))
        assert sorted(line["custom_id"] for line in results) == sorted(f"r{number}" for number in range(20))
        assert next(iter(client.request_batches())) == batch
