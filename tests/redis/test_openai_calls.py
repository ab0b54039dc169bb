"""Calls of ``/v1`` without workers: keys, limits, retries, and jobs that are submitted together."""

from dataclasses import replace
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.event_stream import MAX_BUFFERED, EventInbox, follow_jobs
from api.openai.client_retries import DelayedCalls
from shared.jobs.event_streams import Follower, StreamEvent
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.jobs.transitions import Event
from shared.jobs.worker_registry import WorkerRegistry
from shared.owners.store import ApiKeys
from shared.redis_connection import PREFIX
from shared.settings import Settings
from testing.waiting import wait_until
from tests.conftest import JobSystem
from workers.runtime.worker_runtime import describe_process

MODEL = "gemma-3-270m"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings) -> JobSystem:
    """Services with the clock of Redis, which the application has too."""
    return JobSystem(redis_client, settings, lambda queue, count: None)


@pytest.fixture
def app(settings: Settings, system: JobSystem) -> Flask:
    """An application whose default model has been served, with room for four jobs and a wait of a second."""
    system.client.hset(PREFIX + "models", MODEL, "1")
    return create_app(replace(settings, max_queued_per_owner=4, v1_wait_seconds=1))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def statuses(system: JobSystem, owner: str = "local") -> list[str]:
    jobs, _ = system.queries.list_jobs(owner, limit=100)
    return sorted(job.status.value for job in jobs)


def stream(client: FlaskClient, body: dict[str, Any] | None = None, **headers: str) -> TestResponse:
    return client.post(CHAT, json={**(body or BODY), "stream": True}, headers=headers, buffered=False)


def test_jobs_of_one_request_are_submitted_all_or_none(client: FlaskClient, system: JobSystem) -> None:
    refused = client.post(CHAT, json={**BODY, "n": 5})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (429, "owner_full")
    assert "may hold 4 of your jobs, and this request needs 5" in refused.get_json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false", "it would be refused again"
    assert statuses(system) == []
    first = stream(client, {**BODY, "n": 2})
    refused = client.post("/v1/completions", json={"prompt": ["a", "b", "c"]})
    assert "has no room for 3 more" in refused.get_json()["error"]["message"]
    assert refused.headers["Retry-After"]
    assert statuses(system) == ["queued"] * 2, "nothing was written"
    second = client.post("/v1/completions", json={"prompt": ["a", "b"], "stream": True}, buffered=False)
    assert second.status_code == 200
    for answer in (first, second):
        answer.close()


def test_a_repeated_request_has_the_same_jobs(client: FlaskClient, system: JobSystem) -> None:
    key = {"Idempotency-Key": "order 17"}
    ids = [stream(client, {**BODY, "n": 3}, **key).headers["x-job-id"].split(",") for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3
    system.transitions.cancel(ids[0][1], "local")
    system.transitions.delete(ids[0][1], "local")
    again = stream(client, {**BODY, "n": 3}, **key).headers["x-job-id"].split(",")
    assert [again[0], again[2]] == [ids[0][0], ids[0][2]]
    assert again[1] not in ids[0], "the deleted one is made again"
    conflict = client.post(CHAT, json={**BODY, "n": 4}, headers=key)
    assert (conflict.status_code, len(statuses(system))) == (409, 3)


def test_a_stream_that_is_closed_before_it_began_cancels_its_job(client: FlaskClient, system: JobSystem) -> None:
    stream(client).close()
    assert statuses(system) == ["cancelled"]


def test_a_wait_that_is_over_cancels_the_job(client: FlaskClient, system: JobSystem) -> None:
    answer = client.post(CHAT, json=BODY)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    assert answer.get_json()["error"]["code"] == "answer_timeout"
    assert answer.headers["x-job-id"]
    assert statuses(system) == ["cancelled"]


def test_the_context_of_a_model_is_the_smallest_of_its_engines(client: FlaskClient, system: JobSystem) -> None:
    def reported() -> tuple[int | None, int | None]:
        [native] = [model for model in client.get("/models").get_json() if model["name"] == MODEL]
        return client.get(f"/v1/models/{MODEL}").get_json()["max_model_len"], native["max_context"]

    assert reported()[0] == reported()[1]
    before = reported()[0]
    for name, engine in (("gpu0@h", {"max_context": 0}), ("gpu1@h", {"max_context": 4096}), ("gpu2@h", {"max_context": 900})):
        worker = describe_process(name, pool="gpu", queues=(f"gpu.{MODEL}",), slots=1, model=MODEL)
        WorkerRegistry(system.client).heartbeat(replace(worker, engine=engine))
        assert reported() == {"gpu0@h": (before,) * 2, "gpu1@h": (4096, 4096), "gpu2@h": (900, 900)}[name]


def test_requests_need_a_key_once_one_exists(client: FlaskClient, redis_client: redis.Redis) -> None:
    assert client.get("/v1/models", headers={"Authorization": "Bearer anything"}).status_code == 200
    _, secret = ApiKeys(redis_client).create("ada")
    for headers, code in (({}, "key_missing"), ({"Authorization": "Bearer sk-nope"}, "key_unknown")):
        answer = client.post(CHAT, json=BODY, headers=headers)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (401, code)
        assert set(answer.get_json()["error"]) == {"message", "type", "param", "code"}
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_a_response_says_what_is_left_of_a_rate(client: FlaskClient, redis_client: redis.Redis) -> None:
    assert "x-ratelimit-limit-requests" not in client.get("/v1/models").headers
    _, secret = ApiKeys(redis_client).create("ada", requests_per_second=2)
    answers = [client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"}) for _ in range(6)]
    assert [answer.headers["x-ratelimit-limit-requests"] for answer in answers] == ["4"] * 6
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
    assert left[0] == 3
    assert answers[0].headers["x-ratelimit-reset-requests"] == "0.500s"
    refused = [answer for answer in answers if answer.status_code == 429]
    for answer in refused:
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert answer.headers["Retry-After"]


def test_a_retry_joins_no_job_of_another_owner(client: FlaskClient, redis_client: redis.Redis) -> None:
    keys = {name: {"Authorization": f"Bearer {ApiKeys(redis_client).create(name)[1]}"} for name in ("ada", "bob")}
    first = stream(client, **keys["ada"], **{"x-stainless-retry-count": "0"})
    other = stream(client, **keys["bob"], **{"x-stainless-retry-count": "1"})
    again = stream(client, **keys["ada"], **{"x-stainless-retry-count": "1"})
    different = stream(client, {**BODY, "n": 2}, **keys["ada"], **{"x-stainless-retry-count": "1"})
    assert first.headers["x-job-id"] == again.headers["x-job-id"] != other.headers["x-job-id"]
    assert first.headers["x-job-id"] not in different.headers["x-job-id"].split(",")
    for answer in (first, other, again, different):
        answer.close()


def test_each_retry_joins_another_one_of_equal_requests(client: FlaskClient) -> None:
    first = [stream(client, **{"x-stainless-retry-count": "0"}) for _ in range(2)]
    again = [stream(client, **{"x-stainless-retry-count": "1"}) for _ in range(2)]
    assert [answer.headers["x-job-id"] for answer in first] == [answer.headers["x-job-id"] for answer in again]
    for answer in [*first, *again]:
        answer.close()


def test_a_joined_job_is_not_cancelled_when_its_first_client_leaves(client: FlaskClient, system: JobSystem) -> None:
    first = stream(client, **{"x-stainless-retry-count": "0"})
    again = stream(client, **{"x-stainless-retry-count": "1"})
    first.close()  # before it began, so that a retry may come
    assert statuses(system) == ["queued"]
    again.close()


def test_a_delayed_call_that_fails_does_not_stop_others() -> None:
    made: list[str] = []

    def fail() -> None:
        raise redis.ConnectionError("away")

    calls = DelayedCalls()
    calls.add(lambda: made.append("third"), 0.05)
    calls.add(fail, 0.01)
    calls.add(lambda: made.append("second"), 0.02)
    wait_until(lambda: len(made) == 2, "both calls are made")
    assert made == ["second", "third"]


def test_a_job_that_fails_in_a_stream_ends_it_with_its_error(client: FlaskClient, system: JobSystem) -> None:
    answer = stream(client)
    job = answer.headers["x-job-id"]
    claimed = system.transitions.claim(f"gpu.{MODEL}", "w", "t")
    assert claimed is not None
    error = {"code": "out_of_memory", "message": "No memory.", "param": None, "type": "job_error"}
    assert system.transitions.finish((job, claimed.attempt), Status.FAILED, error=error) == "ok"
    pieces = answer.get_data(as_text=True).split("\n\n")
    assert '"code":"out_of_memory"' in pieces[-3]
    assert pieces[-2] == "data: [DONE]"


@pytest.mark.parametrize("has_text", [False, True])
def test_a_stream_ends_with_an_error_if_a_text_that_it_has_sent_starts_again(
    client: FlaskClient, system: JobSystem, has_text: bool
) -> None:
    answer, queue = stream(client), f"gpu.{MODEL}"
    for attempt in (1, 2):
        claimed = system.transitions.claim(queue, "w", f"t{attempt}")
        assert claimed is not None
        lease = (claimed.id, claimed.attempt)
        job, number = lease
        events = [Event(job=job, attempt=number, index=2, type="delta", data={"text": f"text {attempt}"})]
        if attempt == 2:
            events.insert(0, Event(job=job, attempt=number, index=1, type="restart", data={"attempt": number}))
        if has_text or attempt == 2:
            system.transitions.append_events(events)
        if attempt == 1:
            assert system.transitions.release(lease, queue) == "ok"
        else:
            assert system.transitions.finish(lease, Status.COMPLETED, result={"text": "text 2", "usage": {}}) == "ok"
    content = answer.get_data(as_text=True)
    assert ("output_lost" in content) == has_text
    assert ('"finish_reason":"stop"' in content) != has_text
    assert content.endswith("data: [DONE]\n\n")


def test_a_stream_ends_when_its_key_is_revoked(client: FlaskClient, system: JobSystem, redis_client: redis.Redis) -> None:
    key, secret = ApiKeys(redis_client).create("ada")
    answer = stream(client, Authorization=f"Bearer {secret}")
    pieces = iter(answer.response)
    assert next(pieces) == b": accepted\n\n"
    ApiKeys(redis_client).revoke(key.id)
    assert '"code":"key_unknown"' in b"".join(pieces).decode()  # type: ignore[arg-type]
    assert statuses(system, "ada") == ["cancelled"]
    answer.close()


def test_a_request_from_another_site_is_refused(client: FlaskClient) -> None:
    assert client.post(CHAT, json=BODY, headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/v1/models", headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 403
    assert client.post(CHAT, data="{}", headers={"Content-Type": "text/plain"}).status_code == 400


def test_a_full_inbox_loses_no_event_of_any_job(settings: Settings, system: JobSystem) -> None:
    jobs = [system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="local")).id for _ in range(2)]
    reader = follow_jobs(system.client, Follower(settings.redis_url), [(job, 0) for job in jobs], 0.05)
    seen = [(number, event.type) for _ in range(2) for number, event in next(reader)]
    assert seen == [(0, "queued"), (1, "queued")]
    assert next(reader) == []
    for _ in jobs:
        claimed = system.transitions.claim("q", "w", f"t{len(seen)}")
        assert claimed is not None
        system.transitions.finish((claimed.id, claimed.attempt), Status.COMPLETED, result={"text": "x"})
        seen.append((0, "claimed"))
    rest = [(number, event.type) for events in reader for number, event in events]
    assert sorted(rest) == [(0, "ended"), (0, "started"), (1, "ended"), (1, "started")]


def test_an_inbox_says_whose_events_it_dropped() -> None:
    inbox = EventInbox()
    for number in range(MAX_BUFFERED + 3):
        inbox.add_event(StreamEvent(number, "delta", 1, 0, {}), number=number % 2)
    assert len(inbox.drain(0)) == MAX_BUFFERED
    assert inbox.take_dropped() == {0, 1}
    assert inbox.take_dropped() == set()
