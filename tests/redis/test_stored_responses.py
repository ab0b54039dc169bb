"""Stored responses on a real Redis: how long they are kept, who may read them, and what their webhooks say."""

import json
from datetime import UTC, datetime
from typing import Any

import openai
import pytest
import redis

from api.app import create_app
from shared.errors import NotFound
from shared.jobs.models import Job, Status
from shared.jobs.submission import NOT_STORED_RETENTION_SECONDS, ResponseRecord, Submission
from shared.jobs.transitions import Event
from shared.openai.responses.compaction import compaction_item
from shared.openai.responses.ids import response_id
from shared.openai.responses.items import messages_of
from shared.openai.responses.store import StoredResponses
from shared.owners.store import ApiKeys
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries
from shared.webhooks.endpoints import FINAL_EVENTS, OPENAI_EVENTS, Endpoints
from tests.conftest import Clock, JobSystem
from workers.io.webhooks.dispatcher import signed_headers, webhook_body

DAY = 24 * 3600
CONTENT = {"request": {"store": True}, "input": [{"id": "msg_1", "type": "message", "role": "user", "content": []}]}
STORED = ResponseRecord(content=CONTENT)
IN_BACKGROUND = ResponseRecord(content=CONTENT, in_background=True, keeps_events=True)
NOT_STORED = ResponseRecord(content=None)


@pytest.fixture
def responses(redis_client: redis.Redis, clock: Clock) -> StoredResponses:
    return StoredResponses(redis_client, clock=clock)


def submit(system: JobSystem, record: ResponseRecord) -> str:
    spec = {"messages": [{"role": "user", "content": "x"}]}
    return system.submitter.submit_job(
        Submission(kind="generate", queue="q", model="m", spec=spec, owner="ada", response=record)
    ).id


def end(system: JobSystem, job: str, status: Status = Status.COMPLETED, *, reason: str = "stop", text: str = "ok") -> None:
    claimed = system.transitions.claim("q", "w", f"claim {job}")
    assert isinstance(claimed, Job)
    assert claimed.id == job
    result = {"text": text, "finish_reason": reason, "usage": {}} if status is Status.COMPLETED else None
    error = {"code": "engine_fault", "message": "x"} if status is Status.FAILED else None
    system.transitions.append_events([Event(job=job, attempt=1, index=1, type="delta", data={"text": text})])
    assert system.transitions.finish((job, 1), status, result=result, error=error) == "ok"  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
def test_a_response_is_kept_for_as_long_as_it_is_used(
    system: JobSystem, responses: StoredResponses, clock: Clock, redis_client: redis.Redis, status: Status
) -> None:
    job = submit(system, STORED)
    assert responses.find(response_id(job), "ada").input == CONTENT["input"]
    end(system, job, status)
    for _ in range(3):
        clock.advance(29 * DAY)
        system.maintenance.purge()
        assert responses.find(response_id(job), "ada").job.status is status
    clock.advance(31 * DAY)
    system.maintenance.purge()
    with pytest.raises(NotFound):
        responses.find(response_id(job), "ada")
    assert not list(redis_client.scan_iter(f"eh:job:{job}*"))
    assert redis_client.hget("eh:owner_bytes", "ada") is None


def test_the_events_of_a_stream_in_the_background_are_kept_with_the_response(
    system: JobSystem, redis_client: redis.Redis
) -> None:
    stored, in_background = submit(system, STORED), submit(system, IN_BACKGROUND)
    for job in (stored, in_background):
        end(system, job)
    assert 0 < redis_client.ttl(f"eh:job:{stored}:events") <= 3600  # type: ignore[operator]
    assert redis_client.ttl(f"eh:job:{in_background}:events") == -1
    system.transitions.delete(in_background, "ada")
    assert not redis_client.exists(f"eh:job:{in_background}:events")


def test_a_response_that_is_not_stored_is_gone_after_its_end(
    system: JobSystem, responses: StoredResponses, clock: Clock, redis_client: redis.Redis
) -> None:
    Endpoints(redis_client).create(
        "ada", url="https://a/", authority="a:443", events=FINAL_EVENTS, job_kinds=["generate"], description="", secret=""
    )
    job = submit(system, NOT_STORED)
    with pytest.raises(NotFound):
        responses.find(response_id(job), "ada")
    end(system, job)
    assert not Deliveries(redis_client).list_for_job(job)
    clock.advance(NOT_STORED_RETENTION_SECONDS + 1)
    system.maintenance.purge()
    assert not list(redis_client.scan_iter(f"eh:job:{job}*"))


@pytest.mark.parametrize(
    ("status", "reason", "event"),
    [
        (Status.COMPLETED, "stop", "response.completed"),
        (Status.COMPLETED, "length", "response.incomplete"),
        (Status.FAILED, "", "response.failed"),
        (Status.CANCELLED, "", "response.cancelled"),
    ],
    ids=lambda value: str(value),
)
def test_the_end_of_a_response_in_the_background_is_reported_as_openai_does(
    system: JobSystem, redis_client: redis.Redis, status: Status, reason: str, event: str
) -> None:
    endpoints, deliveries = Endpoints(redis_client), Deliveries(redis_client)
    endpoint = endpoints.create(
        "ada", url="https://a/", authority="a:443", events=OPENAI_EVENTS, job_kinds=["generate"], description="", secret=""
    )
    in_foreground, job = submit(system, STORED), submit(system, IN_BACKGROUND)
    # A text that looks like the end of another result.
    for id in (in_foreground, job):
        end(system, id, status, reason=reason, text='"finish_reason":"length"')
    assert not deliveries.list_for_job(in_foreground)
    [delivery] = deliveries.list_for_job(job)
    assert delivery.event == event
    body = webhook_body(delivery, deliveries.job_record(delivery))
    headers = signed_headers(delivery.id, body, [endpoint.secret], datetime.now(UTC))
    read: Any = openai.OpenAI(api_key="x").webhooks.unwrap(body, headers, secret=endpoint.secret)
    assert (read.type, read.data.id, read.object) == (event, response_id(job), "event")


def test_responses_of_other_owners_do_not_exist(system: JobSystem, settings: Settings, redis_client: redis.Redis) -> None:
    redis_client.hset("eh:models", "gemma-3-270m", "1")
    client = create_app(settings).test_client()
    ada, bob = ({"Authorization": f"Bearer {ApiKeys(redis_client).create(name)[1]}"} for name in ("ada", "bob"))
    job = submit(system, IN_BACKGROUND)
    end(system, job)
    id = response_id(job)
    assert client.get(f"/v1/responses/{id}", headers=ada).status_code == 200
    for method, path in (
        ("GET", id),
        ("GET", f"{id}?stream=true"),
        ("GET", f"{id}/input_items"),
        ("POST", f"{id}/cancel"),
        ("DELETE", id),
    ):
        answer = client.open(f"/v1/responses/{path}", method=method, headers=bob)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "response_not_found"), (method, path)
    body = {"input": [{"type": "item_reference", "id": f"msg_{id[5:]}"}, {"role": "user", "content": "x"}], "background": True}
    assert client.post("/v1/responses", json={**body, "previous_response_id": id}, headers=bob).status_code == 400
    answer = client.post("/v1/responses", json=body, headers=bob)
    assert answer.headers["x-ignored-params"] == "input[0]"
    assert client.get(f"/v1/responses/{answer.get_json()['id']}/input_items", headers=bob).get_json()["data"][0]["role"] == "user"


def test_a_stream_whose_events_are_gone_is_not_continued_but_sent_whole(
    system: JobSystem, settings: Settings, redis_client: redis.Redis
) -> None:
    job = system.submitter.submit_job(
        Submission(kind="generate", queue="q", model="m", spec={"prompt": "x"}, owner="local", response=STORED)
    ).id
    end(system, job)
    redis_client.delete(f"eh:job:{job}:events")
    path = f"/v1/responses/{response_id(job)}?stream=true"
    client = create_app(settings).test_client()
    refused = client.get(f"{path}&starting_after=2")
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "starting_after")
    events = [json.loads(line[6:]) for line in client.get(path).text.splitlines() if line.startswith("data: {")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "ok"


def test_items_become_messages() -> None:
    def message(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "a"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "1"}
    items = [message("developer", "B"), message("user", "u"), {"type": "reasoning"}, call, custom, output]
    items += [
        {**output, "type": "custom_tool_call_output", "call_id": "c2"},
        message("assistant", "a"),
        call,
        message("system", "C"),
    ]
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "patch", "arguments": '{"input": "a"}'}},
    ]
    assert messages_of(items, "A") == [
        {"role": "system", "content": "A\n\nB"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "tool", "content": "1", "tool_call_id": "c2"},
        {"role": "assistant", "content": "a", "tool_calls": calls[:1]},
        {"role": "system", "content": "C"},
    ]


def test_a_compaction_stands_for_the_messages_before_it() -> None:
    def message(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

    items = [message("system", "B"), message("user", "u"), message("assistant", "a"), compaction_item("cmp_1", "they met")]
    assert messages_of([*items, message("user", "next")], "A") == [
        {"role": "system", "content": "A\n\nB\n\nSummary of the conversation so far:\nthey met"},
        {"role": "user", "content": "next"},
    ]
