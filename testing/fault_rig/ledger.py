"""Ledger: the jobs that the server accepted, recorded outside Redis, and the check of the five invariants against it.

I1: every accepted job ends in time, with an allowed status. I2: it has exactly one accepted end and one final event, and its
stream has no gap. I3: the result is that of the last attempt, and the stream has each piece of its text once. I4: no lease, slot, process or descriptor leaks.
I5: no key in Redis is left without an owner or a time to live. The check reads Redis around the proxy.
"""

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import redis

from shared.jobs.event_streams import StreamEvent, read_events
from shared.jobs.models import Job, Outcome, Status
from shared.jobs.queries import read_job
from shared.jobs.usage import Usage, UsageLedger, UsageTotals
from shared.redis_connection import PREFIX
from testing.key_leaks import find_leaked_keys
from testing.waiting import LONG_SECONDS, wait_until

ENDS = (Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED)


class Ledger:
    """An append-only file with a line for each job that was accepted, was excused (a fault destroyed it on purpose) or has ended."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._open: dict[str, dict[str, Any]] = {}

    def record_accepted(self, job: str, *, text: str | None = None, ends: Collection[str] = ("completed",)) -> None:
        """The server answered 202. ``text`` is the expected answer, ``ends`` the allowed final statuses."""
        self._open[job] = {"text": text, "ends": list(ends), "stream": True}
        self._write("accepted", job, **self._open[job])

    def allow_end(self, job: str, *ends: str) -> None:
        """Allow other final statuses than before, because of a fault or a cancel request."""
        self._open[job]["ends"] = list(ends)
        self._write("may_end", job, ends=list(ends))

    def excuse_stream(self, job: str, why: str) -> None:
        """Accept gaps in the stream of this job, because a fault destroyed events. Its end and its result are still promised."""
        self._open[job]["stream"] = False
        self._write("stream_damaged", job, why=why)

    def excuse_job(self, job: str, why: str) -> None:
        """Promise nothing for this job any more."""
        self._open.pop(job, None)
        self._write("excused", job, why=why)

    @property
    def open_jobs(self) -> list[str]:
        """Accepted jobs that have not been seen to end."""
        return list(self._open)

    def check_invariants(self, client: redis.Redis, seconds: float = LONG_SECONDS) -> None:
        """Check I1, I2 and I3 for every open job, then I5. Raises AssertionError, which names the job and the invariant."""
        jobs = self.open_jobs
        wait_until_none(lambda: _states(client, jobs), "I1: jobs that have not ended", seconds=seconds)
        for job in jobs:
            record = read_job(client, job)
            assert record is not None, f"I1: {job} has no record"
            events = read_events(client, job, limit=100_000)
            expected = self._open[job]
            _check_one_end(record, events, whole=expected["stream"])
            assert record.status in expected["ends"], f"I1: {job} ended {record.status} ({record.error}), not {expected['ends']}"
            if record.status is Status.COMPLETED and expected["text"] is not None:
                _check_text(record, events, expected["text"], whole=expected["stream"])
            del self._open[job]
            self._write("ended", job, status=record.status.value, attempts=len(record.attempts))
        check_nothing_left(client)
        check_usage(client)

    def _write(self, what: str, job: str, **more: Any) -> None:
        with self._file.open("a") as stream:
            stream.write(json.dumps({"at": time.time(), "what": what, "job": job, **more}) + "\n")


def check_nothing_left(client: redis.Redis) -> None:
    """Check I5, and the part of I4 that Redis shows. Right after the last end, wake-ups may still be on their way."""

    def left() -> list[str]:
        found = [f"{key}: {client.smembers(key)}" for key in client.scan_iter(f"{PREFIX}worker:*:jobs")]
        found += [str(key) for key in client.scan_iter(f"{PREFIX}queue:*:jobs:*")]
        found += [f"wake-ups on {queue}" for queue in client.smembers(f"{PREFIX}queues") if client.llen(queue)]
        found += [f"due: {job}" for job in client.zrange(f"{PREFIX}jobs:due", 0, -1)]
        # Celery's transport keeps its list of queues for ever, but that does not grow with the number of jobs.
        return found + [key for key in find_leaked_keys(client) if not key.startswith("_kombu.binding")]

    wait_until_none(left, "I4/I5: left without an owner")


def check_usage(client: redis.Redis) -> None:
    """Check that each job that has ended is in the usage ledger once, with what its record has. Deleted jobs are only there."""
    for owner, totals in UsageLedger(client).owner_totals().items():
        ids = client.zrange(f"{PREFIX}owner:{owner}:jobs", 0, -1)
        with client.pipeline(transaction=False) as pipeline:
            for job in ids:
                pipeline.hmget(f"{PREFIX}job:{job}", "ended_at", "usage")
            ended = [usage or "" for ended_at, usage in pipeline.execute() if ended_at]
        recorded = UsageTotals()
        for usage in ended:
            recorded.add(UsageTotals(**vars(Usage.from_text(usage)), jobs=1))
        assert len(ended) <= totals.jobs, f"usage: {len(ended)} jobs of {owner} have ended, and {totals.jobs} are in the ledger"
        assert len(ended) < totals.jobs or recorded == totals, (
            f"usage: {owner}'s jobs have used {recorded}, the ledger has {totals}"
        )


def wait_until_none(find: Callable[[], list[Any]], what: str, *, seconds: float = LONG_SECONDS) -> None:
    """Wait until ``find`` returns nothing. Raises AssertionError with what it still returns."""
    found: list[Any] = []

    def nothing() -> bool:
        found[:] = find()
        return not found

    try:
        wait_until(nothing, what, seconds=seconds, every=0.1)
    except AssertionError:
        raise AssertionError(f"not gone within {seconds:g} s: {what}: {found[:5]}") from None


def _unended(client: redis.Redis, jobs: list[str]) -> list[str]:
    with client.pipeline(transaction=False) as pipeline:
        for job in jobs:
            pipeline.hget(f"{PREFIX}job:{job}", "ended_at")
        return [job for job, ended in zip(jobs, pipeline.execute(), strict=True) if not ended]


def _states(client: redis.Redis, jobs: list[str]) -> list[Any]:
    fields = ("status", "attempt", "worker", "waiting", "queue", "not_before")
    return [(job, client.hmget(f"{PREFIX}job:{job}", *fields)) for job in _unended(client, jobs)]


def _check_one_end(job: Job, events: list[StreamEvent], *, whole: bool) -> None:
    final = [event for event in events if event.type == "ended"]
    assert len(final) == 1, f"I2: {job.id} has {len(final)} final events"
    assert events[-1] is final[0], f"I2: {job.id} has events after its end: {events[-1]}"
    gapless = range(events[0].sequence, events[0].sequence + len(events))
    assert not whole or [event.sequence for event in events] == list(gapless), f"I2: events of {job.id} are missing"
    accepted = [attempt.number for attempt in job.attempts if attempt.outcome in ENDS]
    assert len(accepted) <= 1, f"I2: {job.id} has several accepted ends, of attempts {accepted}"
    assert not accepted or accepted == [job.attempt], f"I3: {job.id} ended by attempt {accepted}, the last is {job.attempt}"
    running = [attempt.number for attempt in job.attempts if attempt.outcome is None]
    if job.status is not Status.CANCELLED:
        assert not running, f"I4: attempts {running} of {job.id} never ended"


def _check_text(job: Job, events: list[StreamEvent], text: str, *, whole: bool) -> None:
    assert job.result is not None
    assert job.result["text"] == text, f"I3: {job.id} answered {job.result['text']!r}, not {text!r}"
    assert job.attempts[-1].outcome is Outcome.COMPLETED, f"I3: {job.id}: {job.attempts[-1]}"
    if not whole:
        return
    shown = "".join(event.data["text"] for event in events if event.type == "delta")
    assert shown == text, f"I3: the stream of {job.id} shows {shown!r}"
    assert not any(event.type == "restart" for event in events), f"I3: {job.id} started its text over"
