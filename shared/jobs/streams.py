"""The events of a job, as clients may see them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from shared.redis_connection import PREFIX


@dataclass(frozen=True)
class StreamEvent:
    """One event of a job. ``sequence`` rises by one with each; ``at`` is in Unix milliseconds."""

    sequence: int
    type: str
    attempt: int
    at: int
    data: Mapping[str, Any]


def stream_key(job: str) -> str:
    return f"{PREFIX}job:{job}:events"


def read(client: redis.Redis, job: str, after: int = 0, limit: int = 1000) -> list[StreamEvent]:
    """Events of a job with a sequence number above ``after``, oldest first."""
    entries: Any = client.xrange(stream_key(job), min=f"({after}-0" if after else "-", count=limit)
    return [_event(entry, fields) for entry, fields in entries]


def _event(entry: str, fields: Mapping[str, str]) -> StreamEvent:
    sequence = int(entry.partition("-")[0])
    return StreamEvent(sequence, fields["type"], int(fields["attempt"]), int(fields["at"]), json.loads(fields["data"]))
