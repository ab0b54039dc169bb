"""``GET /jobs/<id>/events``: what happens to a job as server-sent events (WHATWG HTML, section 9.2), from any point on.

The sequence number of an event is its id, so a client that comes back with ``Last-Event-ID`` misses and repeats nothing,
whichever of our processes had ended meanwhile.
"""

import json
import threading
from collections import deque
from collections.abc import Iterator

import redis
from flask import Blueprint, Response, request

from api.jobs import owned_job
from api.parsing import query_integer
from api.services import Services, services
from shared.errors import InvalidValue
from shared.jobs.streams import StreamEvent, read

blueprint = Blueprint("events", __name__)

KEEP_ALIVE_SECONDS = 15.0
RETRY_MS = 1000
PAGE = 500
# A reader that is further behind reads from Redis again, at its own pace: it costs nobody memory.
MOST_KEPT = 1000
LARGEST_SEQUENCE = 10**12


@blueprint.get("/jobs/<job>/events")
def events(job: str) -> Response:
    """The stream of a job, from its start or after ``Last-Event-ID`` (or ``?after=``), until the job has ended."""
    found = owned_job(job)
    after = _after()
    if found.status.final and after >= found.seq:
        # Nothing will come: 204 is what makes an EventSource stop coming back.
        return Response(status=204)
    here = services()
    here.waiting.hold()
    response = Response(_stream(here, found.id, after), content_type="text/event-stream; charset=utf-8")
    # Also when the client leaves before the first event is asked for.
    response.call_on_close(here.waiting.let_go)
    response.headers["Cache-Control"] = "no-store"
    # nginx would gather events into blocks.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _after() -> int:
    header = request.headers.get("Last-Event-ID")
    if header is None or "after" in request.args:
        return query_integer("after", 0, 0, LARGEST_SEQUENCE)
    if not header.isdigit() or int(header) > LARGEST_SEQUENCE:
        raise InvalidValue(f"Last-Event-ID: must be the id of an event, not {header[:80]!r}", param="Last-Event-ID")
    return int(header)


class _Inbox:
    """Events on their way from the follower's thread to that of one reader; the oldest fall out when it is slow."""

    def __init__(self) -> None:
        self._events: deque[StreamEvent] = deque(maxlen=MOST_KEPT)
        self._arrived = threading.Event()

    def put(self, event: StreamEvent) -> None:
        self._events.append(event)
        self._arrived.set()

    def take(self, seconds: float) -> list[StreamEvent]:
        """What has arrived, waiting so long for the first."""
        self._arrived.wait(seconds)
        self._arrived.clear()
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken


def _stream(here: Services, job: str, after: int) -> Iterator[str]:
    yield f"retry: {RETRY_MS}\n\n"
    inbox, position = _Inbox(), after
    for event in _stored(here.redis, job, position):
        position = event.sequence
        yield _text(event)
        if event.type == "ended":
            return
    here.follower.follow(job, position, inbox.put)
    try:
        while True:
            arrived = inbox.take(KEEP_ALIVE_SECONDS)
            if not arrived:
                if here.lifecycle.get(job) is None:
                    return  # deleted
                yield ": still there\n\n"
            for event in arrived:
                if event.sequence > position + 1:
                    # What fell out of the inbox is still in Redis.
                    for missed in _stored(here.redis, job, position, before=event.sequence):
                        position = missed.sequence
                        yield _text(missed)
                if event.sequence > position:
                    position = event.sequence
                    yield _text(event)
                if event.type == "ended":
                    return
    finally:
        here.follower.leave(job, inbox.put)


def _stored(client: redis.Redis, job: str, after: int, before: int | None = None) -> Iterator[StreamEvent]:
    while page := read(client, job, after, PAGE):
        for event in page:
            if before is not None and event.sequence >= before:
                return
            yield event
        after = page[-1].sequence


def _text(event: StreamEvent) -> str:
    data = {"attempt": event.attempt, "at": event.at / 1000, **event.data}
    return f"id: {event.sequence}\nevent: {event.type}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
