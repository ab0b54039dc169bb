"""Workers of two versions during a deployment: one that continues answers, and an older one that knows nothing of that."""

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from shared.errors import EngineFault
from shared.jobs.deltas import Delta, merge_deltas
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from shared.jobs.transitions import Event
from shared.redis_connection import PREFIX
from shared.settings import Settings
from tests.conftest import Clock, JobSystem
from tests.unit.scripted_engine import ScriptedEngine, handler_of
from workers.runtime.attempt import Attempt, Result
from workers.runtime.event_buffer import EventBuffer

ANSWER = "The archive is open on weekdays."
QUEUE = "gpu.echo"


def claim(system: JobSystem, number: int) -> Job:
    job = system.transitions.claim(QUEUE, f"w{number}", f"t{number}")
    assert job is not None
    return job


def attempt_of_this_version(system: JobSystem, number: int, lifetime: int | None) -> ScriptedEngine:
    """An attempt whose engine dies after this many steps of up to four tokens."""
    choices = random.Random(number)
    engine = ScriptedEngine(ANSWER, lambda: choices.randint(1, 4), lifetime=lifetime)
    job = claim(system, number)

    def publish(buffer: EventBuffer) -> None:
        events = buffer.unwritten()
        assert set(system.transitions.append_events(events)) <= {"ok"}
        if events:
            buffer.drop_through(events[-1].index)

    # A client follows it, so that each step is written.
    attempt = Attempt(replace(job, followed=True), publish)
    try:
        result = handler_of(engine).run_generation(attempt)
    except EngineFault:
        system.maintenance.mark_worker_dead(f"w{number}")
        return engine
    assert isinstance(result, Result)
    system.transitions.finish(attempt.lease, Status.COMPLETED, result=result.value)
    return engine


def attempt_of_an_older_version(system: JobSystem, number: int, text: str) -> None:
    """An attempt that voids what was sent before it, and sends deltas without their tokens. Its scripts leave those of others alone."""
    job = claim(system, number)
    key = f"{PREFIX}job:{job.id}"
    if job.has_deltas:
        kept = system.client.get(f"{key}:output")
        system.transitions.append_events(
            [Event(job=job.id, attempt=job.attempt, index=1, type="restart", data={"attempt": job.attempt})]
        )
        if kept is not None:
            system.client.set(f"{key}:output", kept)
    if text:
        system.transitions.append_events([Event(job=job.id, attempt=job.attempt, index=2, type="delta", data={"text": text})])
    system.maintenance.mark_worker_dead(f"w{number}")


def read(system: JobSystem, job: str) -> tuple[Delta, int]:
    """What a client has at the end, and how often it was told to start again."""
    delta: Delta = {}
    restarts = 0
    for _, fields in system.client.xrange(f"{PREFIX}job:{job}:events"):
        if fields["type"] == "restart":
            delta, restarts = {}, restarts + 1
        elif fields["type"] == "delta":
            merge_deltas(delta, json.loads(fields["data"]))
    return delta, restarts


NEW, OLD, OLD_SILENT = "new", "old", "old without a delta"


@pytest.mark.parametrize(
    ("versions", "restarts"),
    [
        ((NEW, NEW), 0),
        ((OLD,), 1),
        ((NEW, OLD), 2),
        ((NEW, OLD, NEW), 2),
        ((NEW, OLD_SILENT), 1),
        ((OLD, NEW), 1),
        ((OLD, OLD, NEW, NEW), 2),
        ((NEW, OLD, OLD_SILENT, NEW, OLD), 4),
    ],
)
def test_an_answer_is_continued_only_from_what_clients_have_read(
    redis_client: redis.Redis, settings: Settings, clock: Clock, versions: tuple[str, ...], restarts: int
) -> None:
    system = JobSystem(redis_client, replace(settings, max_attempts=20), lambda queue, count: None, clock=clock)
    spec = {"prompt": "When is the archive open?", "temperature": 0.0}
    job = system.submitter.submit_job(Submission(kind="generate", queue=QUEUE, spec=spec, owner="ada")).id
    run: dict[str, Callable[[int], object]] = {
        NEW: lambda number: attempt_of_this_version(system, number, lifetime=2),
        OLD: lambda number: attempt_of_an_older_version(system, number, "The arch"),
        OLD_SILENT: lambda number: attempt_of_an_older_version(system, number, ""),
    }
    for number, version in enumerate(versions, 1):
        run[version](number)
        clock.advance(61)  # later attempts wait for up to a minute
        system.maintenance.reap()
    last = attempt_of_this_version(system, len(versions) + 1, lifetime=None)
    ended = system.queries.get_job(job)
    assert ended is not None
    assert (ended.status, ended.result and ended.result["text"]) == (Status.COMPLETED, ANSWER)
    assert read(system, job) == ({"text": ANSWER}, restarts)
    assert bool(last.requests[0].generated_tokens) == (versions[-1] == NEW)
    assert not redis_client.exists(f"{PREFIX}job:{job}:output")
