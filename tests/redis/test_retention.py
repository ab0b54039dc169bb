"""What is kept of ended jobs: events for a while, the newest jobs of each owner, and small records."""

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from api.app import create_app
from shared.jobs.models import Status
from shared.jobs.submission import SHORT_RETENTION_SECONDS, Submission
from shared.jobs.transitions import Event
from shared.owners.limits import OwnerLimits
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

# A small record is stored in one block as long as no value is larger than the server's limit.
MAX_RECORD_BYTES = 1100


def end_job(system: JobSystem, owner: str = "local", *, text: str = "hello world", status: Status = Status.COMPLETED) -> str:
    """A generation that has ended, with its answer in two events."""
    job = system.submitter.submit_job(
        Submission(kind="generate", queue="q", model="m", spec={"prompt": "p" * 100}, owner=owner)
    ).id
    assert system.transitions.claim("q", "w", f"t {job}") is not None
    pieces = [Event(job=job, attempt=1, index=n + 1, type="delta", data={"text": text[n::2]}) for n in range(2)]
    system.transitions.append_events(pieces)
    result: dict[str, Any] = {"text": text, "finish_reason": "stop", "usage": {}}
    assert system.transitions.finish((job, 1), status, result=result if status is Status.COMPLETED else None) == "ok"
    return job


def events(settings: Settings, job: str, after: int) -> list[tuple[int, str, dict[str, Any]]]:
    answer = create_app(settings).test_client().get(f"/jobs/{job}/events", query_string={"after": after})
    assert answer.status_code == 200
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_the_events_of_an_ended_job_are_kept_for_a_while(system: JobSystem, redis_client: redis.Redis) -> None:
    job = end_job(system)
    assert 3000 < redis_client.ttl(f"eh:job:{job}:events") <= 3600  # type: ignore[operator]
    assert redis_client.ttl(f"eh:job:{job}") == -1


def test_a_stream_that_is_no_longer_kept_still_has_the_whole_text_and_the_end(
    system: JobSystem, redis_client: redis.Redis, settings: Settings
) -> None:
    job = end_job(system)
    whole = events(settings, job, 0)
    last = whole[-1][0]
    redis_client.delete(f"eh:job:{job}:events")

    first = events(settings, job, 0)
    assert [(kind, data.get("text")) for _, kind, data in first] == [("delta", "hello world"), ("ended", None)]
    assert first[-1][0] == last
    assert first[-1][2]["status"] == "completed"

    # A client that has read a part of the text must drop it.
    continued = events(settings, job, last - 2)
    assert [kind for _, kind, _ in continued] == ["restart", "delta", "ended"]
    assert [number for number, _, _ in continued] == [last + 1, last + 2, last + 3]

    assert [kind for _, kind, _ in events(settings, job, last - 1)] == ["ended"]
    assert create_app(settings).test_client().get(f"/jobs/{job}/events", query_string={"after": last}).status_code == 204

    failed = end_job(system, status=Status.FAILED)
    redis_client.delete(f"eh:job:{failed}:events")
    assert [kind for _, kind, _ in events(settings, failed, 0)] == ["ended"]


def test_the_record_of_an_ended_job_is_small(system: JobSystem, redis_client: redis.Redis) -> None:
    job = end_job(system)
    assert redis_client.object("encoding", f"eh:job:{job}") == "listpack"
    assert int(redis_client.memory_usage(f"eh:job:{job}", samples=0) or 0) < MAX_RECORD_BYTES
    assert not {"written", "event_limit", "max_attempts", "max_retries"} & set(redis_client.hkeys(f"eh:job:{job}"))  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [{"max_kept_jobs": 5}, {"max_kept_bytes": 5 * 210}])
def test_the_oldest_ended_jobs_of_an_owner_make_room(
    redis_client: redis.Redis, settings: Settings, clock: Clock, limits: dict[str, int]
) -> None:
    system = JobSystem(redis_client, replace(settings, **limits), lambda queue, count: None, clock=clock)
    waiting = system.submitter.submit_job(Submission(kind="x", queue="other", spec={"prompt": "p" * 100}, owner="local")).id
    jobs = []
    for _ in range(8):
        clock.advance(1)
        jobs.append(end_job(system))
    others = [end_job(system, "bob") for _ in range(3)]
    dead = jobs[0]
    redis_client.zadd("eh:jobs:dead_letters", {dead: 1})
    while system.maintenance.purge(2):
        pass
    kept = [job for job in jobs if system.queries.get_job(job) is not None]
    assert kept[0] == dead, "an operator has to look at it"
    assert kept[1:] == jobs[-len(kept) + 1 :], "the newest are kept"
    assert 3 <= len(kept) <= 5
    assert all(system.queries.get_job(job) is not None for job in [waiting, *others])


def test_an_owner_may_keep_more_or_fewer_jobs_than_others(redis_client: redis.Redis, settings: Settings) -> None:
    system = JobSystem(redis_client, replace(settings, max_kept_jobs=3), lambda queue, count: None)
    OwnerLimits(redis_client).set_limits("ada", {"kept_jobs": 1})
    OwnerLimits(redis_client).set_limits("bob", {"kept_jobs": 0})
    ended = {owner: [end_job(system, owner) for _ in range(5)] for owner in ("ada", "bob", "eve")}
    system.maintenance.purge()
    assert {owner: sum(system.queries.get_job(job) is not None for job in jobs) for owner, jobs in ended.items()} == {
        "ada": 1,
        "bob": 5,
        "eve": 3,
    }


@pytest.mark.parametrize("kind", ["embed", "tokenize"])
def test_results_that_a_client_waits_for_are_kept_for_minutes(system: JobSystem, clock: Clock, kind: str) -> None:
    job = system.submitter.submit_job(Submission(kind=kind, queue="q", spec={}, owner="local")).id
    assert system.transitions.claim("q", "w", "t") is not None
    assert system.transitions.finish((job, 1), Status.COMPLETED, result={"tokens": []}) == "ok"
    clock.advance(SHORT_RETENTION_SECONDS - 1)
    system.maintenance.purge()
    assert system.queries.get_job(job) is not None
    clock.advance(2)
    system.maintenance.purge()
    assert system.queries.get_job(job) is None


def test_a_stream_that_is_gone_is_summed_up_with_every_part_of_the_answer(system: JobSystem, settings: Settings) -> None:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", model="m", spec={}, owner="local")).id
    assert system.transitions.claim("q", "w", "t") is not None
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"text": "", "reasoning": "Hm.", "tool_calls": [call], "finish_reason": "tool_calls", "usage": {}}
    assert system.transitions.finish((job, 1), Status.COMPLETED, result=result) == "ok"
    system.client.delete(f"eh:job:{job}:events")
    delta = events(settings, job, 0)[0]
    assert delta[1] == "delta"
    assert delta[2]["reasoning"] == "Hm."
    assert delta[2]["tool_calls"] == [{"index": 0, "id": "call_1", "name": "f", "arguments": "{}"}]
    assert "text" not in delta[2]
