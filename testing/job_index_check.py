"""Comparison of the index of jobs with a scan of all records."""

from collections import Counter, defaultdict
from typing import Any

import redis

GROUPS, GROUP = "eh:jobs:groups:", "eh:jobs:group:"


def find_index_errors(connection: redis.Redis) -> list[str]:
    """Where the groups of jobs, their numbers, and the lists of owners differ from what the records say."""
    client: Any = connection  # redis-py types every response as possibly awaitable
    expected: defaultdict[str, set[str]] = defaultdict(set)
    lists: defaultdict[str, set[str]] = defaultdict(set)
    numbers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    found: dict[str, set[str]] = {}
    found_lists: dict[str, set[str]] = {}
    found_numbers: dict[str, Counter[str]] = {}
    for key in client.scan_iter("eh:*", count=1000):
        if key.startswith(GROUPS):
            found_numbers[key] = Counter({name: int(number) for name, number in client.hgetall(key).items()})
        elif key.startswith(GROUP):
            found[key] = set(client.zrange(key, 0, -1))
        elif key.startswith("eh:owner:") and key.endswith(":jobs"):
            found_lists[key] = set(client.zrange(key, 0, -1))
        elif key.startswith("eh:job:") and key.count(":") == 2:
            job = client.hgetall(key)
            if "status" not in job:
                continue
            group = f"{job['status']} {job['kind']} {job.get('model', '')}"
            lists[f"eh:owner:{job['owner']}:jobs"].add(job["id"])
            for part in ("", *filter(None, (job.get("collection"), job.get("parent")))):
                scope = f"{job['owner']}:{part}" if part else job["owner"]
                expected[f"{GROUP}{scope}:{group}"].add(job["id"])
                numbers[f"{GROUPS}{scope}"][group] += 1
    return [
        f"{key}: has {there.get(key)}, and the records say {records.get(key)}"
        for there, records in ((found, expected), (found_lists, lists), (found_numbers, numbers))
        for key in sorted({*there, *records})
        if there.get(key) != records.get(key)
    ]
