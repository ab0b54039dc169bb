"""Reading many jobs: pages of an owner's jobs, and where a queued job stands.

Reads only; a job that is purged between the index and the record is left out.
"""

from collections.abc import Callable
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import redis

from shared.ids import JOB, is_id
from shared.jobs.models import Job, from_record
from shared.redis_connection import PREFIX

BATCH = 100
# A filter that matches little must not read a hundred thousand records in one request; the client goes on from `next`.
MOST_READ = 2000
FEWEST_GAPS = 3


def page(
    client: redis.Redis, owner: str, *, limit: int, after: str | None = None, wanted: Callable[[Job], bool] = lambda job: True
) -> tuple[list[Job], str | None]:
    """Jobs of an owner, newest first, that come after the id ``after`` and are ``wanted``; and where the next page starts.

    A page may be short, even empty, although more follow: then the second value is not None.
    """
    found: list[Job] = []
    cursor = after if after is not None and is_id(JOB, after) else None
    read = 0
    while read < MOST_READ:
        ids = _ids(client, owner, cursor, BATCH)
        for job in _records(client, ids):
            if len(found) == limit:
                return found, found[-1].id
            if wanted(job):
                found.append(job)
        if len(ids) < BATCH:
            return found, None
        cursor = ids[-1]
        read += len(ids)
    return found, cursor


def queue_position(client: redis.Redis, job: Job) -> int | None:
    """How many claims it takes until this job's turn, 1 being next; None unless it waits in its queue.

    Owners take turns, the one with the least service first; so of another owner's jobs no more count than this owner has
    before it, and one more when that owner's turn comes first.
    """
    queue = f"{PREFIX}queue:{job.queue}"
    rank = client.zrank(f"{queue}:jobs:{job.owner}", job.id)
    if rank is None:
        return None
    before = int(str(rank))
    owners = _texts(client.zrange(f"{queue}:owners", 0, -1))
    with client.pipeline(transaction=False) as pipeline:
        for owner in owners:
            pipeline.zcard(f"{queue}:jobs:{owner}")
        counts = pipeline.execute()
    position, turns = 1 + before, before + 1
    for owner, count in zip(owners, counts, strict=True):
        if owner == job.owner:
            turns = before
        else:
            position += min(int(count), turns)
    return position


def estimated_wait(client: redis.Redis, job: Job, position: int) -> dict[str, float] | None:
    """Seconds until a queued job's turn: ``seconds``, and the band ``low`` to ``high`` that holds nine waits in ten.

    From the times between the latest claims of its queue; None while there are too few. Sums of many gaps are nearly normal,
    so the band is 1.64 standard deviations on each side: those of the sum, and of the mean known from so few.
    """
    gaps = [float(gap) / 1000 for gap in _texts(client.lrange(f"{PREFIX}queue:{job.queue}:gaps", 0, -1))]
    if len(gaps) < FEWEST_GAPS:
        return None
    expected, spread = position * fmean(gaps), 1.64 * stdev(gaps) * sqrt(position + position**2 / len(gaps))
    return {
        "seconds": round(expected, 3),
        "low": round(max(0.0, expected - spread), 3),
        "high": round(expected + spread, 3),
    }


def has_least_service(client: redis.Redis, job: Job) -> bool:
    """Whether the owner of a queued job is the one whose turn it is."""
    first = _texts(client.zrange(f"{PREFIX}queue:{job.queue}:owners", 0, 0))
    return first == [job.owner]


def queue_lengths(client: redis.Redis) -> dict[str, int]:
    """How many jobs wait in each queue that has any."""
    lengths = {}
    for queue in _texts(client.smembers(f"{PREFIX}queues")):
        owners = _texts(client.zrange(f"{PREFIX}queue:{queue}:owners", 0, -1))
        lengths[queue] = sum(int(str(client.zcard(f"{PREFIX}queue:{queue}:jobs:{owner}"))) for owner in owners)
    return lengths


def _ids(client: redis.Redis, owner: str, cursor: str | None, count: int) -> list[str]:
    start = f"({cursor}" if cursor else "+"
    return _texts(client.zrange(f"{PREFIX}owner:{owner}:jobs", start, "-", desc=True, bylex=True, offset=0, num=count))


def _records(client: redis.Redis, ids: list[str]) -> list[Job]:
    with client.pipeline(transaction=False) as pipeline:
        for job in ids:
            pipeline.hgetall(f"{PREFIX}job:{job}")
        return [from_record(record) for record in pipeline.execute() if record]


def _texts(answer: Any) -> list[str]:
    return list(answer)
