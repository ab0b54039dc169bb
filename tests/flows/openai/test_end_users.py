"""End users behind one key, as a chat application names them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.openai.conftest import user


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ({"user": "bob"}, "bob"),
        ({"safety_identifier": "bea"}, "bea"),
        ({"extra_headers": {"X-OpenWebUI-User-Id": "ben"}}, "ben"),
        ({"user": "bob", "extra_headers": {"X-OpenWebUI-User-Id": "ben"}}, "bob"),
    ],
)
def test_many_jobs_of_one_end_user_do_not_delay_another(
    v1_stack: Stack, client: openai.OpenAI, named: dict[str, Any], name: str
) -> None:
    queue = "/admin/queues/gpu.echo"
    assert v1_stack.client.put(queue, json={"paused": True}).status_code == 200
    try:
        backlog = [v1_stack.generate("x" * 60, end_user="ann")["id"] for _ in range(40)]
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(client.chat.completions.with_raw_response.create, model="echo", messages=user("hello"), **named)
            wait_until(lambda: len(v1_stack.client.get("/jobs?status=queued&limit=100").json()["data"]) > 40, "all are queued")
            assert v1_stack.client.put(queue, json={"paused": False}).status_code == 200
            raw = call.result()
    finally:
        v1_stack.client.put(queue, json={"paused": False})
    job = v1_stack.job(raw.headers["x-job-id"])
    earlier = sum(v1_stack.ended(other)["started_at"] < job["started_at"] for other in backlog)
    assert (job["end_user"], job["metadata"]) == (name, {})
    assert earlier <= 8, "only those that were claimed at the same moment are before it"


def test_other_calls_name_the_end_user_too(v1_stack: Stack, client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model="echo", prompt="hello", user="cid")
    assert v1_stack.job(raw.headers["x-job-id"])["end_user"] == "cid"
    vectors = client.embeddings.with_raw_response.create(model="hash", input="hello", user="cid")
    assert v1_stack.job(vectors.headers["x-job-id"])["end_user"] == "cid"
    assert v1_stack.job(v1_stack.generate("hello")["id"])["end_user"] is None
    [retried] = [v1_stack.post(f"/jobs/{raw.headers['x-job-id']}/retry", {}).json()]
    assert retried["end_user"] == "cid"
    refused = v1_stack.post("/generate", {"prompt": "x", "end_user": "x" * 513})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "end_user")
