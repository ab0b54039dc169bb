"""State machine test: random sequences of all transitions on a real Redis must agree with ``reference.py`` after every step.

Every transition is sent twice, as redis-py does after a lost reply. Each run ends with a drain, after which every job must have
ended and no key may remain without a time to live. ``STATE_MACHINE_EXAMPLES`` sets the number of runs.
"""

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import hypothesis
import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from shared.errors import BatchSealed, IdempotencyConflict, NotFound, TooMany
from shared.ids import JOB, new_id
from shared.jobs.models import Status, from_record
from shared.jobs.queue_snapshot import user_digest
from shared.jobs.submission import Submission, SubmissionResult
from shared.jobs.transitions import Event
from shared.jobs.usage import Usage, UsageLedger, UsageTotals, sum_usage
from shared.sessions.store import Sessions
from shared.settings import Settings
from testing.job_index_check import find_index_errors
from testing.key_leaks import find_leaked_keys
from tests.conftest import Clock, JobSystem
from tests.redis.reference import FINAL, Job, Lease, Reference

T = TypeVar("T")

WEIGHTS = {"ada": 1.0, "bob": 2.0, "cat": 0.5}
QUEUES = ("gpu", "cpu")
WORKERS = ("w1", "w2")
LIMITS = {"max_queued": 6, "max_queued_per_owner": 4, "max_attempts": 2, "max_retries": 1}
FAULT = {"code": "engine_fault", "message": "the engine stopped"}

owners, queues, workers = st.sampled_from(sorted(WEIGHTS)), st.sampled_from(QUEUES), st.sampled_from(WORKERS)
numbers = st.integers(0, 63)
usages = st.sampled_from(
    [
        Usage(),
        Usage(prompt_tokens=7, completion_tokens=3, gpu_ms=250),
        Usage(prompt_tokens=7, cached_tokens=4, completion_tokens=9, gpu_ms=1),
        Usage(embedding_tokens=300, pages=2, bytes=4_000_000_000),
    ]
)
keys = st.sampled_from(["", "key"])
fingerprints = st.sampled_from(["one body", "one body", "another body"])
options = st.fixed_dictionaries(
    {
        "priority": st.sampled_from([0, 5, 9]),
        "cost": st.sampled_from([1, 10, 100]),
        "end_user": st.sampled_from(["", "", "uma", "vic"]),
    },
    optional={
        "wait_ms": st.sampled_from([5_000, 40_000]),
        "expires_ms": st.sampled_from([4_000, 50_000]),
        "timeout_ms": st.sampled_from([20_000, 100_000]),
        "concurrency_key": st.sampled_from(["door"]),
        "concurrency_limit": st.sampled_from([1, 2]),
    },
)


def twice(transition: Callable[[], T]) -> T:
    """Send a transition twice. Both results must be equal."""
    first, again = transition(), transition()
    assert first == again
    return first


def pick(among: Sequence[T], number: int) -> T:
    return among[number % len(among)]


class TransitionMachine(RuleBasedStateMachine):
    """Actions of owners, workers, maintenance and the clock, in the order that Hypothesis chooses."""

    client: redis.Redis
    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.client.hset("eh:weights", mapping=WEIGHTS)
        self.clock = Clock()
        self.started_ms = self.clock.now_ms
        self.wakeups: Counter[str] = Counter()
        settings = replace(self.settings, **LIMITS)
        self.real = JobSystem(self.client, settings, lambda queue, count: self.wakeups.update({queue: count}), clock=self.clock)
        self.reference = Reference(self.clock, settings, WEIGHTS)
        self.counter = 0
        self.claims: list[tuple[str, str, str]] = []
        self.leases: list[Lease] = []
        self.remembered: dict[str, list[Lease]] = {worker: [] for worker in WORKERS}
        self.event_counts: Counter[Lease] = Counter()

    def new_id(self) -> str:
        self.counter += 1
        return new_id(JOB, now_ms=self.clock.now_ms, random=self.counter.to_bytes(10, "big"))

    def some_job(self, number: int) -> str:
        """Any job, including jobs without a record."""
        return pick(list(self.reference.index) or ["job_none"], number)

    def some_batch(self, number: int) -> str:
        """Any batch, preferably one that has not ended."""
        batches = [job for job in self.reference.jobs.values() if job.kind == "batch"]
        still_open = [job for job in batches if not job.final] if number % 4 else []
        return pick([job.id for job in still_open or batches] or ["job_none"], number // 4)

    def some_lease(self, number: int) -> Lease:
        """Any lease, preferably a current one, or one whose job has a later attempt."""
        running = {job.id: job.attempt for job in self.reference.jobs.values() if job.worker and job.status == "in_progress"}
        current = list(running.items())
        superseded = [lease for lease in self.leases if lease[0] in running and lease not in current]
        return pick((self.leases, superseded, current, current)[number % 4] or current or self.leases, number // 4)

    # Clients

    @initialize()
    def begin(self) -> None:
        for queue in QUEUES:
            self.submit_a_job("ada", queue, "", "", {}, False)
        self.open_batch("bob", "", "")
        self.add_to_batch(1, QUEUES[0])
        self.claim(1, QUEUES[0], WORKERS[0])

    @rule(owner=owners, queue=queues, key=keys, fingerprint=fingerprints, options=options, in_session=st.booleans())
    def submit_a_job(self, owner: str, queue: str, key: str, fingerprint: str, options: Any, in_session: bool) -> None:
        submission = Submission(
            kind="generate",
            queue=queue,
            spec={"collection_id": "col_a"} if queue == "cpu" else {},
            owner=owner,
            id=self.new_id(),
            model=queue,
            session=self.session_of(owner) if in_session else "",
            idempotency_key=key,
            fingerprint=fingerprint,
            **options,
        )
        self.submit_both(submission, lambda: twice(lambda: self.real.submitter.submit_job(submission)))

    @rule(
        count=st.integers(2, 4),
        owner=owners,
        queue=queues,
        in_session=st.booleans(),
        end_user=st.sampled_from(["", "uma"]),
        key=st.sampled_from(["", "door", "door"]),
        number=numbers,
    )
    def submit_some(self, count: int, owner: str, queue: str, in_session: bool, end_user: str, key: str, number: int) -> None:
        options = {"end_user": end_user, "concurrency_key": key, "concurrency_limit": 1 + number % 2}
        for _ in range(count):
            self.submit_a_job(owner, queue, "", "", options, in_session)

    @rule(count=st.integers(2, 4), owner=owners, queue=queues, options=options)
    def submit_together(self, count: int, owner: str, queue: str, options: Any) -> None:
        submissions = [
            Submission(kind="generate", queue=queue, spec={}, owner=owner, id=self.new_id(), **options) for _ in range(count)
        ]
        answer = self.reference.submit_together(submissions)
        for _ in range(2):
            if answer == "created":
                assert [made.id for made in self.real.submitter.submit_jobs(submissions)] == [made.id for made in submissions]
            else:
                with pytest.raises(TooMany) as refusal:
                    self.real.submitter.submit_jobs(submissions)
                assert refusal.value.code == answer

    @rule(owner=owners, key=keys, fingerprint=fingerprints)
    def open_batch(self, owner: str, key: str, fingerprint: str) -> None:
        batch = Job(id=self.new_id(), owner=owner, created_at=self.clock.now_ms, expires_at=0)
        answer, value = self.reference.open_batch(batch, key=key, fingerprint=fingerprint)

        def transition() -> SubmissionResult:
            return self.real.submitter.open_batch(owner, spec={}, idempotency_key=key, fingerprint=fingerprint, id=batch.id)

        if answer == "conflict":
            with pytest.raises(IdempotencyConflict):
                transition()
        else:
            assert twice(transition) == SubmissionResult(value, answer == "replayed")

    @rule(number=numbers, queue=queues)
    def add_to_batch(self, number: int, queue: str) -> None:
        batch = self.some_batch(number)
        owner = self.reference.index.get(batch, "ada")
        submission = Submission(kind="ingest", queue=queue, spec={}, owner=owner, id=self.new_id(), parent=batch)
        self.submit_both(submission, lambda: twice(lambda: self.real.submitter.submit_job(submission)))

    @rule(number=numbers, key=keys, fingerprint=fingerprints, stranger=st.sampled_from([False, False, True]))
    def join(self, number: int, key: str, fingerprint: str, stranger: bool) -> None:
        batch = self.some_batch(number)
        owner = "eve" if stranger else self.reference.index.get(batch, "eve")
        answer, value = self.reference.join(batch, owner, key=key, fingerprint=fingerprint)
        refusals = {"missing": NotFound, "sealed": BatchSealed, "conflict": IdempotencyConflict}

        def transition() -> None:
            self.real.submitter.join_batch(batch, owner, idempotency_key=key, fingerprint=fingerprint)

        for _ in range(2):
            if answer == "joined":
                transition()
            else:
                with pytest.raises(refusals[answer], match=value or None):
                    transition()

    @rule(number=numbers)
    def seal(self, number: int) -> None:
        batch = self.some_batch(number)
        self.reference.seal(batch)
        twice(lambda: self.real.submitter.seal_batch(batch))

    @rule(number=numbers, batch=st.booleans(), stranger=st.sampled_from([False, False, True]))
    def cancel(self, number: int, batch: bool, stranger: bool) -> None:
        job = self.some_batch(number) if batch else self.some_job(number)
        owner = "eve" if stranger else self.reference.index.get(job, "eve")
        for _ in range(2):
            assert self.real.transitions.cancel(job, owner) == self.reference.cancel(job, owner)

    @rule(number=numbers, what=st.sampled_from(["delete", "expire_record", "replay", "replay", "remove_dead_letter"]))
    def after_the_end(self, number: int, what: str) -> None:
        dead = sorted(self.reference.dead & self.reference.jobs.keys())
        ended = [job.id for job in self.reference.jobs.values() if job.final]
        job = pick((dead, ended, ended, [])[number % 4] or [self.some_job(number // 4)], number // 4)
        getattr(self, what)(job)

    def delete(self, job: str) -> None:
        owner = self.reference.index.get(job, "eve")
        for _ in range(2):
            assert self.real.transitions.delete(job, owner) == self.reference.delete(job, owner)

    def expire_record(self, job: str) -> None:
        """Purge an ended job whose retention is over."""
        outlived = job in self.reference.jobs and self.reference.jobs[job].final
        if outlived:
            self.reference.delete(job, self.reference.index[job])
            self.client.zadd("eh:jobs:ended", {job: 0})
        for expected in (int(outlived), 0):
            assert self.real.maintenance.purge() == expected

    def remove_dead_letter(self, job: str) -> None:
        for _ in range(2):
            assert self.real.transitions.remove_dead_letter(job) == self.reference.remove_dead_letter(job)

    def replay(self, job: str) -> None:
        expected, real = self.reference.jobs.get(job), self.real.queries.get_job(job)
        if expected is None or real is None or not expected.final or expected.kind == "batch":
            return
        again = Submission(
            kind=expected.kind,
            queue=expected.first_queue,
            spec={},
            owner=expected.owner,
            model=expected.model,
            session=self.session_of(expected.owner) if expected.session else "",
            end_user=expected.end_user,
            priority=expected.priority,
            cost=expected.cost,
            concurrency_key=expected.concurrency_key,
            concurrency_limit=expected.concurrency_limit,
        )
        created: list[str] = []

        def submit() -> SubmissionResult:
            created.append(self.real.submitter.replay(real).id)
            return SubmissionResult(again.id)

        if self.submit_both(again, submit):
            self.reference.rename(again.id, created[0])
            self.reference.remove_dead_letter(job)

    # Workers

    @rule(count=st.integers(1, 3), queue=queues, worker=workers)
    def claim(self, count: int, queue: str, worker: str) -> None:
        for _ in range(count):
            self.counter += 1
            self.claims.append((queue, worker, f"token{self.counter}"))
            self.claim_both(*self.claims[-1])

    @rule(number=numbers)
    def claim_again(self, number: int) -> None:
        """Claim with a token that was used before."""
        self.claim_both(*pick(self.claims, number))

    @precondition(lambda self: self.leases)
    @rule(number=numbers)
    def append_event(self, number: int) -> None:
        lease = self.some_lease(number)
        self.event_counts[lease] += 1
        expected = self.reference.append(lease, self.event_counts[lease])
        event = Event(job=lease[0], attempt=lease[1], index=self.event_counts[lease], type="delta", data={"text": "x"})
        assert twice(lambda: self.real.transitions.append_events([event])) == [expected]

    @precondition(lambda self: self.leases)
    @rule(
        number=numbers,
        status=st.sampled_from([Status.COMPLETED, Status.COMPLETED, Status.FAILED, Status.CANCELLED]),
        service=st.sampled_from([None, 1, 50, 400]),
        usage=usages,
    )
    def end(self, number: int, status: Any, service: int | None, usage: Usage) -> None:
        self.end_both(self.some_lease(number), status, service, usage)

    @precondition(lambda self: self.leases)
    @rule(number=numbers, queue=queues, how=st.sampled_from(["handed_over", "released", "retried", "retried"]), usage=usages)
    def give_back(self, number: int, queue: str, how: str, usage: Usage) -> None:
        lease = self.some_lease(number)
        job = self.reference.jobs.get(lease[0])
        if how == "retried":
            self.retry_both(lease, job.retries if job else 0, usage)
        elif how == "released":
            own_queue = job.queue if job else queue
            expected = self.reference.hand_over(lease, how, own_queue, usage)
            assert twice(lambda: self.real.transitions.release(lease, own_queue, usage=usage)) == expected
        else:
            expected = self.reference.hand_over(lease, how, queue, usage)
            assert twice(lambda: self.real.transitions.hand_over(lease, queue, {}, usage=usage)) == expected

    @rule(worker=workers)
    def renew(self, worker: str) -> None:
        leases = self.remembered[worker]
        expected = [self.reference.renew(lease) for lease in leases]
        assert twice(lambda: self.real.transitions.renew(worker, leases)) == expected
        self.remembered[worker] = [lease for lease, word in zip(leases, expected, strict=True) if word != "lost"]

    @rule(worker=workers, known=st.booleans())
    def worker_dies(self, worker: str, known: bool) -> None:
        """Stop renewing the worker's leases. Its writes may still arrive late."""
        self.remembered[worker].clear()
        if known:
            assert self.real.maintenance.mark_worker_dead(worker) == self.reference.mark_worker_dead(worker)
            assert self.real.maintenance.mark_worker_dead(worker) == self.reference.mark_worker_dead(worker) == []

    # Time

    @rule(seconds=st.sampled_from([0.001, 2, 6, 6, 31, 31, 70, 3601]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(leases=st.sampled_from([True, True, True, False]))
    def reap(self, leases: bool) -> None:
        """Reap in two processes, one after the other."""
        for _ in range(2):
            assert self.real.maintenance.reap(leases=leases)[:2] == self.reference.reap(leases=leases)

    # Each of these applies one action to Redis and to the reference.

    def session_of(self, owner: str) -> str:
        Sessions(self.client, Settings()).open(f"of-{owner}", owner)
        return f"of-{owner}"

    def submit_both(self, submission: Submission, submit: Callable[[], SubmissionResult]) -> bool:
        answer, value = self.reference.submit(submission)
        if answer == "conflict":
            with pytest.raises(IdempotencyConflict, match=value):
                submit()
        elif answer in ("queue_full", "owner_full"):
            with pytest.raises(TooMany) as refusal:
                submit()
            assert refusal.value.code == answer
        else:
            assert submit() == SubmissionResult(value, answer == "replayed")
        return answer == "created"

    def claim_both(self, queue: str, worker: str, token: str) -> Lease | None:
        lease = self.reference.claim(queue, worker, token)
        claimed = twice(lambda: self.real.transitions.claim(queue, worker, token))
        assert (claimed and (claimed.id, claimed.attempt)) == lease
        if lease and lease not in self.leases:
            self.leases.append(lease)
            self.remembered[worker].append(lease)
        return lease

    def end_both(self, lease: Lease, status: Any, service: int | None, usage: Usage) -> None:
        result = {"of": lease[1]} if status is Status.COMPLETED else None
        error = FAULT if status is Status.FAILED else None
        code = FAULT["code"] if error else None
        expected = self.reference.end(lease, status.value, result=result, code=code, service=service, usage=usage)
        assert (
            twice(lambda: self.real.transitions.finish(lease, status, service=service, usage=usage, result=result, error=error))
            == expected
        )

    def retry_both(self, lease: Lease, retries: int, usage: Usage) -> None:
        random.seed(self.counter)
        delay_ms = int(1000 * 4**retries * random.uniform(1, 1.5))
        expected = self.reference.retry(lease, delay_ms, FAULT["code"], usage)
        random.seed(self.counter)
        assert twice(lambda: self.real.transitions.retry(lease, retries, FAULT, usage=usage)) == expected

    # Invariants

    @invariant()
    def both_agree(self) -> None:
        self.every_record_agrees()
        self.every_job_is_in_exactly_one_place()
        assert find_index_errors(self.client) == []
        # One wake-up is sent each time a job becomes claimable, even if the transition is sent twice.
        assert self.wakeups == self.reference.wakeups

    def every_record_agrees(self) -> None:
        jobs = list(self.reference.jobs.values())
        with self.client.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.hgetall(f"eh:job:{job.id}")
                pipeline.get(f"eh:job:{job.id}:result")
                pipeline.hvals(f"eh:job:{job.id}:input")
                pipeline.xrange(f"eh:job:{job.id}:events")
                pipeline.smembers(f"eh:job:{job.id}:open")
            pipeline.hgetall("eh:owner_bytes")
            answers = iter(pipeline.execute())
        sizes: Counter[str] = Counter()
        for job in jobs:
            record, result, inputs, stream, still_open = (next(answers) for _ in range(5))
            sizes[job.owner] += sum(map(len, [*inputs, result or ""]))
            real = from_record({**record, "result": result or ""})
            assert (real.status, real.waiting, real.queue) == (job.status, job.waiting, job.queue), job
            assert (real.attempt, real.lost, real.retries) == (job.attempt, job.lost, job.retries), job
            assert {attempt.number: attempt.outcome for attempt in real.attempts if attempt.outcome} == job.outcomes
            assert (real.started_at is not None, real.cancel_requested_at is not None) == (job.started, job.cancel_requested)
            assert (real.ended_at is not None) == job.final == (job.events.count("ended") == 1)
            assert [fields["type"] for _, fields in stream if fields["type"] != "progress"] == job.events
            assert [entry for entry, _ in stream] == [f"{number}-0" for number in range(1, real.seq + 1)]
            if job.kind == "batch":
                counts = {"total": job.children} | {status: job.ended_children[status] for status in FINAL}
                assert real.counts == counts
                assert still_open == job.open
                assert real.result == (counts if job.final else None)
            else:
                assert (real.result, real.error and real.error["code"]) == (job.result, job.code)
        assert {owner: int(size) for owner, size in next(answers).items()} == +sizes

    def usage_is_in_the_ledger_once(self) -> None:
        """The ledger has the usage of every job that has ended, deleted ones included."""
        first, last = (datetime.fromtimestamp(ms / 1000, UTC).date() for ms in (self.started_ms, self.clock.now_ms))
        ledger = UsageLedger(self.client)
        assert sum_usage(ledger.rows(first, last), ("owner", "kind", "model", "end_user")) == self.reference.ledger
        totals = {owner: UsageTotals() for owner, *_ in self.reference.ledger}
        for (owner, *_), usage in self.reference.ledger.items():
            totals[owner].add(usage)
        assert ledger.owner_totals() == totals

    def every_job_is_in_exactly_one_place(self) -> None:
        jobs = self.reference.jobs.values()
        scored: dict[str, dict[str, float]] = {"eh:jobs:due": {job.id: job.due for job in jobs if job.due is not None}}
        ordered: dict[str, list[str]] = {}
        for owner in WEIGHTS:
            mine = [job for job in jobs if (job.owner, job.concurrency_key) == (owner, "door")]
            parked = sorted((job for job in mine if job.waiting == "concurrency"), key=lambda job: job.urgency)
            ordered[f"eh:concurrency:{owner}:{user_digest('door')}:parked"] = [job.id for job in parked]
            running = {job.id for job in mine if job.status == "in_progress"}
            assert self.client.smembers(f"eh:concurrency:{owner}:{user_digest('door')}:running") == running
        held = {worker: {job.id for job in jobs if job.status == "in_progress" and job.worker == worker} for worker in WORKERS}
        for queue in QUEUES:
            waiting = self.reference.claimable(queue)
            scored[f"eh:queue:{queue}:owners"] = {job.owner: self.reference.service[queue, job.owner] for job in waiting}
            for owner in WEIGHTS:
                mine = sorted((job for job in waiting if job.owner == owner), key=lambda job: job.urgency)
                ordered[f"eh:queue:{queue}:jobs:{owner}"] = [job.id for job in mine]
                by_user = (queue, owner) in self.reference.by_user
                sharers = {job.sharer for job in mine if by_user}
                scored[f"eh:queue:{queue}:users:{owner}"] = {user[2]: self.reference.user_service[user] for user in sharers}
                for user in map(user_digest, ("", "uma", "vic")):
                    own = [job.id for job in mine if by_user and job.sharer[2] == user]
                    ordered[f"eh:queue:{queue}:user_jobs:{owner}:{user}"] = own
        with self.client.pipeline(transaction=False) as pipeline:
            for key in scored:
                pipeline.zrange(key, 0, -1, withscores=True)
            for key in ordered:
                pipeline.zrange(key, 0, -1)
            for worker in WORKERS:
                pipeline.smembers(f"eh:worker:{worker}:jobs")
            pipeline.zrange("eh:jobs:dead_letters", 0, -1)
            answers = iter(pipeline.execute())
        assert {key: dict(next(answers)) for key in scored} == scored
        assert {key: next(answers) for key in ordered} == ordered
        assert {worker: next(answers) for worker in WORKERS} == held
        assert set(next(answers)) == self.reference.dead

    def teardown(self) -> None:
        """Let time pass and complete all jobs. Every job must end, and no key may remain without a time to live."""
        if sys.exc_info()[0] is not None:
            return  # the two differ since the step that failed, so an error of the drain would only hide it
        for _ in range(12):
            self.clock.advance(3601)
            self.reap(leases=True)
            for queue in QUEUES:
                self.counter += 1
                while lease := self.claim_both(queue, WORKERS[0], f"token{self.counter}"):
                    self.end_both(lease, Status.COMPLETED, None, Usage())
                    self.counter += 1
            self.both_agree()
            if all(job.final for job in self.reference.jobs.values()):
                break
        assert [job for job in self.reference.jobs.values() if not job.final] == []
        self.usage_is_in_the_ledger_once()
        assert find_leaked_keys(self.client) == []


def test_transitions_agree_with_the_reference(redis_client: redis.Redis, settings: Settings) -> None:
    class OnThisRedis(TransitionMachine):
        client = redis_client

    OnThisRedis.settings = settings
    options = hypothesis.settings(
        max_examples=int(os.environ.get("STATE_MACHINE_EXAMPLES", "25")),
        stateful_step_count=50,
        deadline=None,
        derandomize=bool(os.environ.get("CI")),
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(OnThisRedis, settings=options)
