"""Baseline for event streams: each reader blocks in a Redis connection of its own.

A WSGI application with one call, ``GET /jobs/<job>/events``, for the same server, settings and Redis as the API. It checks no
owners and has no limits.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import redis

from shared.jobs.event_streams import stream_key

BLOCK_MS = 15_000


def app(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stream one job from its start to its end."""
    job = environment["PATH_INFO"].split("/")[2]
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
    return _events(job)


def _events(job: str) -> Iterator[bytes]:
    client = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True, socket_timeout=60)
    key, position = stream_key(job), "0-0"
    try:
        while True:
            answer: Any = client.xread({key: position}, block=BLOCK_MS)
            for _, entries in answer.items() if isinstance(answer, dict) else answer or ():
                for position, fields in entries[0] if entries and isinstance(entries[0], list) else entries:
                    data = {"attempt": int(fields["attempt"]), "at": int(fields["at"]) / 1000, **json.loads(fields["data"])}
                    yield f"id: {position.partition('-')[0]}\nevent: {fields['type']}\ndata: {json.dumps(data)}\n\n".encode()
                    if fields["type"] == "ended":
                        return
    finally:
        client.close()
