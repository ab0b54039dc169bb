"""End users behind one key, as a chat application names them."""

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
    backlog = [v1_stack.generate("x" * 60, end_user="ann")["id"] for _ in range(40)]
    wait_until(lambda: v1_stack.job(backlog[0])["started_at"], "the first of them runs")
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=user("hello"), **named)
    job = v1_stack.job(raw.headers["x-job-id"])
    later = sum((v1_stack.job(other)["started_at"] or float("inf")) > job["started_at"] for other in backlog)
    for other in reversed(backlog):
        v1_stack.post(f"/jobs/{other}/cancel", {})
    assert (job["end_user"], job["metadata"]) == (name, {})
    assert later >= 16, "at most the next slot is awaited"


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
