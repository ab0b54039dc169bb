"""End users behind one key: they share what the owner gets, without limits on their number and without a trace when they are gone."""

from collections import Counter

import pytest
import redis

from shared.jobs.models import Job, Status
from shared.jobs.stats import StatsReader
from shared.jobs.submission import Submission
from tests.conftest import JobSystem

QUEUE = "gpu.m"
# Of a job that may generate 4,000 tokens and generates a few.
COST, SERVICE = 8000, 50


def submit(system: JobSystem, end_user: str, owner: str = "app", *, cost: int = COST, priority: int = 5) -> str:
    submission = Submission(kind="generate", queue=QUEUE, spec={}, owner=owner, end_user=end_user, cost=cost, priority=priority)
    return system.submitter.submit_job(submission).id


class Slots:
    """Slots of one worker, all of them busy as long as jobs wait. Jobs end in the order in which they have started."""

    def __init__(self, system: JobSystem, count: int) -> None:
        self.system, self.count = system, count
        self.running: list[Job] = []
        self.started: list[Job] = []

    def fill(self) -> None:
        while len(self.running) < self.count:
            job = self.system.transitions.claim(QUEUE, "w1", f"t{len(self.started)}")
            if job is None:
                return
            self.running.append(job)
            self.started.append(job)

    def end_one(self, service: int = SERVICE) -> None:
        job = self.running.pop(0)
        self.system.transitions.finish((job.id, job.attempt), Status.COMPLETED, result={}, service=service)

    def run(self, jobs: int) -> list[str]:
        """Start this many jobs; returns their end users."""
        first = len(self.started)
        self.fill()
        while len(self.started) < first + jobs and self.running:
            self.end_one()
            self.fill()
        return [job.end_user for job in self.started[first : first + jobs]]


@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize("greedy", ["ann", ""])
def test_the_jobs_of_one_end_user_do_not_delay_the_job_of_another(system: JobSystem, slots: int, greedy: str) -> None:
    for _ in range(400):
        submit(system, greedy)
    worker = Slots(system, slots)
    worker.run(100)
    job = submit(system, "bob")
    assert system.queries.queue_snapshot(system.queries.get_job(job)).position == 1  # type: ignore[arg-type]
    worker.end_one()
    worker.fill()
    assert worker.started[-1].id == job


@pytest.mark.parametrize(("users", "slots", "served"), [(2, 1, 0), (2, 8, 30), (3, 2, 7), (5, 4, 1), (4, 7, 20)])
def test_end_users_get_equal_turns_whenever_they_come(system: JobSystem, users: int, slots: int, served: int) -> None:
    for _ in range(served + 40):
        submit(system, "first")
    worker = Slots(system, slots)
    worker.run(served)
    for user in range(1, users):
        for _ in range(20):
            submit(system, f"user {user}")
    worker.run(slots)
    turns = Counter(worker.run(8 * users))
    assert len(turns) == users
    # Jobs that already ran when the others came have been received by then, and no others.
    assert max(turns.values()) - min(turns.values()) <= max(2, slots), turns


def test_owners_share_first_and_then_their_end_users(system: JobSystem) -> None:
    for _ in range(100):
        for number in range(4):
            submit(system, f"user {number}", "crowd")
        submit(system, "", "single")
    worker = Slots(system, 1)
    worker.run(80)
    owners = Counter(job.owner for job in worker.started)
    assert owners["single"] == pytest.approx(40, abs=1)
    users = Counter(job.end_user for job in worker.started if job.owner == "crowd")
    assert [users[f"user {number}"] for number in range(4)] == pytest.approx([10] * 4, abs=1)


def test_an_end_user_who_leaves_and_comes_back_gains_nothing(system: JobSystem) -> None:
    for _ in range(50):
        submit(system, "stays")
    worker = Slots(system, 1)
    worker.run(2)
    turns: Counter[str] = Counter()
    for _ in range(20):
        submit(system, "comes back")
        turns.update(worker.run(2))
    assert turns["stays"] >= turns["comes back"] - 1


def test_priorities_order_the_jobs_of_one_end_user_only(system: JobSystem) -> None:
    late = submit(system, "ann", priority=9)
    urgent = submit(system, "ann", priority=0)
    other = submit(system, "bob", priority=9)
    worker = Slots(system, 1)
    worker.run(3)
    assert {job.id for job in worker.started[:2]} == {urgent, other}
    assert worker.started[2].id == late


def test_positions_are_those_of_the_claims(system: JobSystem) -> None:
    queries = system.queries
    jobs = [submit(system, user) for user in ("ann", "ann", "ann", "bob", "bob", "", "ann")]
    others = [submit(system, "", "other") for _ in range(2)]
    waiting = [queries.get_job(job) for job in jobs + others]
    expected = {job.id: queries.queue_snapshot(job).position for job in waiting if job is not None}
    worker = Slots(system, 1)
    worker.run(len(waiting))
    assert [expected[job.id] for job in worker.started] == list(range(1, len(waiting) + 1))


def test_a_queue_reports_how_many_end_users_wait(system: JobSystem, redis_client: redis.Redis) -> None:
    for user in ("ann", "ann", "bob", ""):
        submit(system, user)
    [queue] = StatsReader(redis_client).list_queues(10)
    [owner] = queue.owners
    assert (queue.waiting, owner.waiting, owner.end_users) == (4, 4, 2)


def test_a_job_waits_for_its_fair_share_while_another_end_user_comes_first(system: JobSystem) -> None:
    jobs = {user: [submit(system, user) for _ in range(2)] for user in ("ann", "bob")}
    worker = Slots(system, 1)
    worker.run(1)
    [served] = [job.end_user for job in worker.started]
    comes_first = {
        user: system.queries.queue_snapshot(job).has_least_service
        for user in jobs
        if (job := system.queries.get_job(jobs[user][1])) is not None
    }
    assert comes_first == {"ann": served == "bob", "bob": served == "ann"}


def test_names_of_end_users_do_not_fill_redis(system: JobSystem, redis_client: redis.Redis) -> None:
    name = "a name that is too long for a key " * 10
    worker = Slots(system, 1)
    for number in range(1100):
        submit(system, f"{name}{number}", cost=10)
        worker.run(1)
        worker.end_one(service=9000)
    keys = [str(key) for key in redis_client.scan_iter("eh:queue:*")]
    assert not [key for key in keys if "name" in key]
    assert redis_client.zcard(f"eh:queue:{QUEUE}:user_service:app") <= 1000
    assert [key for key in keys if redis_client.ttl(key) < 0] == []
    assert not [key for key in keys if ":user_jobs:" in key or ":users:" in key]


def test_jobs_of_a_version_without_end_users_are_claimed(system: JobSystem, redis_client: redis.Redis) -> None:
    """It knows only the queue of the owner: what it submits is not in that of an end user, and what it claims stays there."""
    old, claimed, new = (submit(system, "ann") for _ in range(3))
    [jobs] = list(redis_client.scan_iter("eh:queue:*:user_jobs:*"))
    redis_client.zrem(jobs, old)
    redis_client.zrem(f"eh:queue:{QUEUE}:jobs:app", claimed)
    worker = Slots(system, 1)
    worker.run(2)
    assert [job.id for job in worker.started] == [new, old]


def test_a_reserved_slot_is_not_for_the_batch_of_an_end_user_while_another_waits(system: JobSystem) -> None:
    def claim(number: int, reserved: int) -> str:
        job = system.transitions.claim_for_slot(QUEUE, "w1", f"t{number}", slots=2, reserved=reserved)
        return job.end_user if isinstance(job, Job) else str(job)

    for _ in range(4):
        submit(system, "batch", priority=8)
    assert claim(0, 1) == "batch"
    submit(system, "chat", cost=1_000_000)
    assert claim(1, 1) == "chat"
    assert claim(2, 1) == "held_back"
