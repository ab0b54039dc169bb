"""Finds Redis keys that would stay for ever although nobody owns them."""

import fnmatch
from collections.abc import Iterable

import redis

# Keys that may live for ever, and who ends them.
OWNED = (
    "eh:jobs:due",  # every job that has not ended; each leaves at its end
    "eh:jobs:dead_letters",  # purged with the records
    "eh:owner:*:jobs",  # purged with the records
    "eh:owners",
    "eh:keys",  # until an operator deletes them
    "eh:weights",
    "eh:counts",  # as many fields as there are kinds, statuses and queues
    "eh:queues",
    "eh:models",  # models that have ever been served
    "eh:workers",  # the janitor removes those that are gone
    "eh:assignments",  # purged when nobody has taken them for a week
    "eh:owner:*:webhooks",  # endpoints live until they are deleted
    "eh:owner:*:webhook_secret",
    "eh:webhook:*",
    "eh:owner:*:deliveries",  # purged with the records
    "eh:deliveries:*",  # each delivery leaves when it has ended
    "eh:collections:*",  # documents live until they are deleted
    "eh:collection:*",
    "eh:document:*",
    "_kombu.binding.*",  # Celery's own
    "unacked*",
)


def keys_that_nobody_ends(client: redis.Redis) -> list[str]:
    """Keys with no time to live that are neither on the list above nor of a job that has not ended."""
    alive = set(client.zrange("eh:jobs:due", 0, -1))
    return sorted(key for key in client.scan_iter() if client.ttl(key) == -1 and not _owned(key, alive, client))


def _owned(key: str, alive: Iterable[str], client: redis.Redis) -> bool:
    if any(fnmatch.fnmatchcase(key, pattern) for pattern in OWNED):
        return True
    if any(f"eh:job:{job}" in key for job in alive):
        return True
    # Queues and the sets of workers hold ids of jobs; those of living jobs are theirs.
    if key.startswith(("eh:queue:", "eh:worker:")) and alive:
        return True
    # A Celery list is a queue's tickets.
    return client.sismember("eh:queues", key) or key.startswith("canary.")
