"""Queue snapshot: what one round trip to Redis says about a queued job: its position, when it may start, and what keeps it waiting.

Each queued job in a response needs one, also that of each submission, and a round trip takes a client more time than Redis.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import redis

from shared.jobs.models import Job
from shared.jobs.pauses import PAUSED
from shared.lua_scripts import Clock
from shared.owners.limits import owner_limits_key
from shared.redis_connection import PREFIX, time_reply_ms

# Of the end users of an owner, this many with the least service are counted with all their jobs, and the others with one.
COUNTED_USERS = 1000

# Fewer gaps between claims give no estimate.
MIN_GAPS = 3


@dataclass(frozen=True, kw_only=True)
class QueueSnapshot:
    """``position`` is the number of claims until the job is claimed (1 is next), None if it is not waiting in its queue.

    Neither another owner nor another end user of the job's owner comes first in the queue if ``has_least_service``, as if the queue is
    empty: then the job has just been claimed. ``gaps`` are the seconds between recent claims, and ``last_gap`` those since the last one, if
    jobs have waited since. ``owner_limits`` are the limits that were set for the job's owner.
    """

    position: int | None
    has_least_service: bool
    gaps: Sequence[float]
    last_gap: float | None
    is_paused: bool
    owner_limits: Mapping[str, int]

    def estimated_wait(self, position: int) -> dict[str, float] | None:
        """Estimated seconds until the job at a position is claimed: ``seconds``, and a 90% interval from ``low`` to ``high``.

        The estimate uses the times between recent claims of the queue; it is None if there are too few, or if the next claim is
        later than all of them: then the slots are held by longer jobs than before. Sums of many gaps are nearly normal, so the
        interval is 1.64 standard deviations on each side. The deviation includes the uncertainty of the mean, which comes from a
        small sample.
        """
        gaps = self.gaps
        if len(gaps) < MIN_GAPS or (self.last_gap is not None and self.last_gap > max(gaps)):
            return None
        expected, spread = position * fmean(gaps), 1.64 * stdev(gaps) * sqrt(position + position**2 / len(gaps))
        return {
            "seconds": round(expected, 3),
            "low": round(max(0.0, expected - spread), 3),
            "high": round(expected + spread, 3),
        }


def read_snapshot(client: redis.Redis, job: Job, clock: Clock | None = None) -> QueueSnapshot:
    """The snapshot of a job's queue. ``clock`` replaces the time of Redis.

    Owners take turns, starting with the one that has received the least service, and within an owner's turns so do its end users.
    Another owner's jobs therefore count at most as often as this owner has jobs ahead of this one, plus one if the other owner's
    turn comes first; the same holds for end users. Their jobs take another round trip, if there are others.
    """
    queue, user = f"{PREFIX}queue:{job.queue}", user_digest(job.end_user)
    pipeline: Any
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zrank(f"{queue}:jobs:{job.owner}", job.id)
        pipeline.zrank(f"{queue}:user_jobs:{job.owner}:{user}", job.id)
        pipeline.zcard(f"{queue}:users:{job.owner}")
        pipeline.zrange(f"{queue}:users:{job.owner}", 0, COUNTED_USERS - 1)
        pipeline.zrange(f"{queue}:owners", 0, -1)
        pipeline.lrange(f"{queue}:gaps", 0, -1)
        pipeline.hget(f"{queue}:pace", "claimed_at")
        pipeline.time()
        pipeline.hexists(PAUSED, f"queue:{job.queue}")
        pipeline.hgetall(owner_limits_key(job.owner))
        rank, user_rank, user_count, users, owners, gaps, claimed_at, redis_time, is_paused, limits = pipeline.execute()
    position = None
    if rank is not None:
        # Without end users, there is only the queue of the owner.
        ahead: int = rank if user_rank is None else user_rank
        ahead += _turns_of_others(client, f"{queue}:user_jobs:{job.owner}", users, user, ahead)
        ahead += max(0, user_count - COUNTED_USERS)
        position = ahead + 1 + _turns_of_others(client, f"{queue}:jobs", owners, job.owner, ahead)
    now_ms = clock() if clock is not None else time_reply_ms(redis_time)
    return QueueSnapshot(
        position=position,
        has_least_service=owners[:1] in ([], [job.owner]) and users[:1] in ([], [user]),
        gaps=[float(gap) / 1000 for gap in gaps],
        last_gap=None if claimed_at is None else (now_ms - int(claimed_at)) / 1000,
        is_paused=bool(is_paused),
        owner_limits={name: int(value) for name, value in limits.items()},
    )


def user_digest(end_user: str) -> str:
    """The name of an end user in keys, as in ``lua/lib/queue.lua``."""
    return hashlib.sha1(end_user.encode(), usedforsecurity=False).hexdigest()[:16] if end_user else "~"


def _turns_of_others(client: redis.Redis, jobs: str, members: list[str], own: str, ahead: int) -> int:
    """How many jobs of others are claimed before one that has ``ahead`` jobs of its own member ahead of it.

    ``members`` are in the order of their turns; the jobs of each are in the sorted set ``<jobs>:<member>``.
    """
    if members in ([], [own]):
        return 0
    with client.pipeline(transaction=False) as pipeline:
        for member in members:
            pipeline.zcard(f"{jobs}:{member}")
        counts = pipeline.execute()
    place = members.index(own) if own in members else len(members)
    return sum(min(count, ahead + 1 if index < place else ahead) for index, count in enumerate(counts) if index != place)
