"""``GET /jobs/<job>/events``: the events of a job as server-sent events."""

from functools import partial

from flask import Blueprint, Response, request

from api.caller import caller
from api.event_stream import stream_events
from api.openapi.operation import JOB, Operation, Reply, describe, in_header, in_query
from api.owned_jobs import find_owned_job
from api.request_parsing import parse_integer, query_integer
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services

blueprint = Blueprint("events", __name__)

MAX_SEQUENCE = 10**12
SEQUENCE = {"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE}


@blueprint.get("/jobs/<job>/events")
@describe(
    Operation(
        tag="Jobs",
        summary="Follow a job",
        description=(
            "Server-sent events from the job's start until its end: `queued`, `started`, `delta`, `progress`, `attempt_lost`, "
            "`requeued`, `restart` (discard the text received so far), `ended`. The data of each is JSON (EventData). Ids "
            "increase by one; a client that reconnects with the last id misses and repeats nothing."
        ),
        parameters=(
            JOB,
            in_query("after", SEQUENCE, "Start after the event with this id; takes precedence over the header.", 1),
            in_header("Last-Event-ID", SEQUENCE, "The same; an EventSource sends it when it reconnects."),
        ),
        replies={
            200: Reply(
                description="The stream of events.",
                model=responses.StreamEvent,
                event_data=responses.EventData,
                media_type="text/event-stream",
            ),
            204: Reply(description="There are no more events.", media_type=""),
        },
    )
)
def follow_job(job: str) -> RouteResponse:
    found = find_owned_job(job)
    after = _start_after()
    if found.status.final and after >= found.seq:
        # A 204 makes an EventSource stop reconnecting.
        return Response(status=204)
    context = services()
    release_slot = context.job_waiter.acquire_slot("streams")
    is_valid = partial(context.authenticator.is_valid, caller())
    events = stream_events(context.redis, context.follower, context.queries, found, after, is_valid=is_valid)
    response = Response(events, content_type="text/event-stream; charset=utf-8")
    # This also runs if the client leaves before the first event.
    response.call_on_close(release_slot)
    # Without this header nginx buffers events.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _start_after() -> int:
    header = request.headers.get("Last-Event-ID")
    if header is None or "after" in request.args:
        return query_integer("after", 0, 0, MAX_SEQUENCE)
    return parse_integer(header, "Last-Event-ID", 0, MAX_SEQUENCE)
