"""A closed connection cancels the jobs of its request, unless a retry joins them."""

from typing import Any

import httpx2
import openai
import pytest

from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.openai.conftest import LONG, user


def newest_job(stack: Stack, **filters: Any) -> dict[str, Any]:
    return dict(stack.client.get("/jobs", params={"limit": 1, **filters}).json()["data"][0])


def job_after(stack: Stack, earlier: str) -> str:
    """The id of the job that was submitted after this one. The client may have left before the server had read its request."""
    return str(wait_until(lambda: next((job for job in [newest_job(stack)["id"]] if job != earlier), None), "a job is submitted"))


@pytest.fixture
def earlier(v1_stack: Stack) -> str:
    """The job that was submitted last before the test."""
    return str(v1_stack.generate("earlier")["id"])


def wait_for_cancel(stack: Stack, job: str) -> None:
    wait_until(lambda: stack.job(job)["status"] == "cancelled", "the job is cancelled")


def test_closing_a_stream_cancels_its_job(v1_stack: Stack, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="echo", stream=True, n=2, **LONG)
    next(iter(stream))
    jobs = stream.response.headers["x-job-id"].split(",")
    stream.close()
    for job in jobs:
        wait_for_cancel(v1_stack, job)


def test_leaving_before_the_answer_cancels_its_job(v1_stack: Stack, earlier: str) -> None:
    with pytest.raises(httpx2.ReadTimeout), httpx2.Client(base_url=v1_stack.url, timeout=0.5) as short:
        short.post("/v1/chat/completions", json=LONG)
    wait_for_cancel(v1_stack, job_after(v1_stack, earlier))


def test_a_retry_joins_the_job_of_the_first_try(v1_stack: Stack, client: openai.OpenAI, earlier: str) -> None:
    # Five seconds. A try has to last until the API has its request, or the next one would come first.
    text = "again " * 200
    answer = client.with_options(timeout=2, max_retries=20).chat.completions.create(
        model="echo", messages=user(text), max_tokens=2000, seed=3
    )
    assert answer.choices[0].message.content == f"user: {text}".rstrip()
    jobs = v1_stack.client.get("/jobs", params={"limit": 10}).json()["data"]
    ids = [job["id"] for job in jobs]
    assert ids.index(earlier) == 1, "one job for all tries"
    assert jobs[0]["status"] == "completed"


def test_without_a_retry_the_job_is_cancelled_after_a_moment(v1_stack: Stack, client: openai.OpenAI, earlier: str) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(model="echo", **LONG)
    wait_for_cancel(v1_stack, job_after(v1_stack, earlier))


def test_a_retry_after_an_error_makes_a_new_job(v1_stack: Stack) -> None:
    body = {"messages": user("y" * 9000)}
    first = v1_stack.post("/v1/chat/completions", body, **{"x-stainless-retry-count": "0"})
    second = v1_stack.post("/v1/chat/completions", body, **{"x-stainless-retry-count": "1"})
    assert first.status_code == second.status_code == 400
    assert first.headers["x-job-id"] != second.headers["x-job-id"]


def test_with_an_idempotency_key_the_job_goes_on(v1_stack: Stack) -> None:
    body, headers = {"messages": user("on " * 100), "max_tokens": 1000}, {"Idempotency-Key": "goes-on"}
    with pytest.raises(httpx2.ReadTimeout), httpx2.Client(base_url=v1_stack.url, timeout=0.4) as short:
        short.post("/v1/chat/completions", json=body, headers=headers)
    answer = v1_stack.post("/v1/chat/completions", body, **headers)
    assert answer.status_code == 200
    assert answer.headers["x-job-id"] == newest_job(v1_stack)["id"]


def test_a_queued_stream_says_what_it_waits_for(v1_stack: Stack) -> None:
    running = [v1_stack.generate("word " * 1400, max_tokens=8000)["id"] for _ in range(8)]
    body = {"messages": user("last"), "stream": True, "service_tier": "flex"}
    with v1_stack.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines) == ": accepted"
        assert next(line for line in lines if line.startswith(": queued")).startswith(": queued 1")
        for job in running:
            v1_stack.post(f"/jobs/{job}/cancel", None)
        assert list(lines)[-2] == "data: [DONE]"


def test_a_cancelled_job_ends_its_stream_with_an_error(v1_stack: Stack) -> None:
    with v1_stack.client.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True}) as answer:
        v1_stack.post(f"/jobs/{answer.headers['x-job-id']}/cancel", None)
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert '"code":"answer_cancelled"' in lines[-2]
    assert lines[-1] == "data: [DONE]"
