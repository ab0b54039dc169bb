"""Leak detection: Redis keys without a time to live that no object owns."""

import fnmatch
from collections.abc import Collection
from typing import Any

import redis

# Keys that may exist without a time to live, and when they are deleted.
OWNED = (
    "eh:jobs:due",  # every job that has not ended
    "eh:jobs:dead_letters",  # purged with the records
    "eh:jobs:ended",  # purge deletes these jobs when their time has come
    "eh:owner_bytes",  # one field per owner with jobs
    "eh:owner:*:jobs",  # purged with the records
    "eh:jobs:groups:*",  # purged with the records
    "eh:jobs:group:*",
    "eh:owners",
    "eh:keys",  # until an operator deletes them
    "eh:keys:used",
    "eh:weights",
    "eh:owner:*:limits",  # until an operator removes them
    "eh:key:*:limits",
    "eh:owner:*:open_batches",  # as long as they are open
    "eh:owner:*:stored",  # as long as the owner has documents or files
    "eh:owner:*:files",  # kept until they are deleted or expire
    "eh:file:*",
    "eh:files:expiring",
    "eh:owner:*:request_batches",  # purged with the records
    "eh:paused",  # until an operator resumes them
    "eh:concurrency:*",  # as long as jobs with the key run or wait for others
    "eh:usage:totals",  # one field per owner, up to a hundred
    "eh:counts",  # one field per kind, status and queue
    "eh:stats:histograms",  # one field per histogram, label and bucket
    "eh:stats:notes",  # added to these two at a fixed length
    "eh:queues",
    "eh:models",  # models that have ever been served
    "eh:workers",  # maintenance removes dead workers
    "eh:assignments",  # purged after a week without a heartbeat
    "eh:owner:*:webhooks",  # endpoints are kept until they are deleted
    "eh:owner:*:webhook_secret",
    "eh:webhook:*",
    "eh:owner:*:deliveries",  # purged with the records
    "eh:deliveries:*",  # deliveries that have not ended
    "eh:collections:*",  # documents are kept until they are deleted
    "eh:collection:*",
    "eh:document:*",
    "eh:data",  # as long as the data folder
    "eh:index:problems",  # until the collection is reindexed or deleted
    "_kombu.binding.*",  # Celery's own
    "unacked*",
)


def find_leaked_keys(client: redis.Redis) -> list[str]:
    """Keys without a time to live that neither match ``OWNED`` nor belong to a job that is open or that purge will delete."""
    open_jobs: set[Any] = set(client.zrange("eh:jobs:due", 0, -1))
    ended_jobs: set[Any] = set(client.zrange("eh:jobs:ended", 0, -1))
    keys = list(client.scan_iter())
    pipeline: Any
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.ttl(key)
        ttls = pipeline.execute()
    lasting = [key for key, ttl in zip(keys, ttls, strict=True) if ttl == -1]
    return sorted(key for key in lasting if _job_of(key) not in ended_jobs and not _owned(key, open_jobs, client))


def _job_of(key: str) -> str:
    """The id of the job that a key belongs to, or an empty string. Some tests keep ten thousand jobs, so the id is read from the key."""
    return key.split(":")[2] if key.startswith("eh:job:") else ""


def _owned(key: str, open_jobs: Collection[str], client: redis.Redis) -> bool:
    if any(fnmatch.fnmatchcase(key, pattern) for pattern in OWNED):
        return True
    if _job_of(key) in open_jobs:
        return True
    # Keys of queues and workers hold job ids, so they are owned while a job is open.
    if key.startswith(("eh:queue:", "eh:worker:")) and open_jobs:
        return True
    # A Celery list holds the wake-ups of a queue.
    return bool(client.sismember("eh:queues", key)) or key.startswith("canary.")
