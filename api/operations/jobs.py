"""The calls that look at jobs, follow, cancel, repeat and forget them."""

from typing import get_args

from api.operations.operation import JOB, LIMIT, PREFER, WAIT, Operation, Reply, in_header, in_query
from api.schemas import responses
from api.schemas.requests import Retry
from shared.jobs.models import Status

ENDED_JOB = {
    "id": "job_01m84stetzyr7esggznw5rdjds",
    "object": "job",
    "kind": "generate",
    "status": "completed",
    "phase": "completed",
    "phase_at": 1795457629.063,
    "model": "gemma-3-270m",
    "priority": 5,
    "created_at": 1795457629.024,
    "started_at": 1795457629.056,
    "ended_at": 1795457629.063,
    "expires_at": 1795544029.024,
    "cancel_requested_at": None,
    "progress": None,
    "attempts": [
        {
            "number": 1,
            "worker": "gpu0@vm/15283",
            "queue": "gpu.gemma-3-270m",
            "started_at": 1795457629.056,
            "ended_at": 1795457629.063,
            "outcome": "completed",
            "error": None,
        }
    ],
    "metadata": {"order": "17"},
    "result": {
        "text": "Paris.",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 16, "completion_tokens": 3, "total_tokens": 19},
    },
    "error": None,
    "heartbeat_at": 1795457629.061,
    "batch": None,
    "retry_of": None,
    "timings": {"queued": 0.032, "first_token": 0.039, "total": 0.039},
    "urls": {
        "self": "/jobs/job_01m84stetzyr7esggznw5rdjds",
        "events": "/jobs/job_01m84stetzyr7esggznw5rdjds/events",
        "cancel": "/jobs/job_01m84stetzyr7esggznw5rdjds/cancel",
    },
    "response": "Paris.",
    "context_used": False,
}

SEQUENCE = {"type": "integer", "minimum": 0, "maximum": 10**12}
ACCEPTED = ("Location", "Retry-After")

OPERATIONS = (
    Operation(
        call="GET /jobs",
        tag="Jobs",
        summary="All jobs, newest first",
        parameters=(
            LIMIT,
            in_query("after", {"type": "string"}, "The `next` of the page before."),
            in_query("status", {"enum": [status.value for status in Status]}, "Only jobs of this status.", "completed"),
            in_query("kind", {"enum": list(get_args(responses.Kind))}, "Only jobs of this kind.", "generate"),
            in_query("model", {"type": "string"}, "Only jobs of this model."),
            in_query("batch", {"type": "string"}, "Only the jobs of this batch."),
        ),
        replies={200: Reply(description="One page.", model=responses.JobList)},
    ),
    Operation(
        call="GET /jobs/{job}",
        tag="Jobs",
        summary="One job",
        description="With a wait, the answer comes when the job has ended, or as it stands when the wait is over.",
        parameters=(JOB, WAIT, PREFER),
        replies={
            200: Reply(
                description="The job; `Retry-After` when it has not ended.",
                model=responses.Job,
                headers=("Retry-After",),
                example=ENDED_JOB,
            )
        },
    ),
    Operation(
        call="GET /jobs/{job}/events",
        tag="Jobs",
        summary="What happens to a job, as it happens",
        description=(
            "Server-sent events from the job's start until its end: `queued`, `started`, `delta`, `progress`, `attempt_lost`, "
            "`requeued`, `restart` (what was shown so far is void), `ended`. The data of each is JSON (EventData). Ids rise by "
            "one; who comes back with the last id misses and repeats nothing."
        ),
        parameters=(
            JOB,
            in_query("after", SEQUENCE, "Begin after the event of this id; wins over the header.", 1),
            in_header("Last-Event-ID", SEQUENCE, "The same, as an EventSource sends it by itself."),
        ),
        replies={
            200: Reply(
                description="The stream, event by event.",
                model=responses.StreamEvent,
                also=responses.EventData,
                media_type="text/event-stream",
            ),
            204: Reply(description="Nothing more will come.", media_type=""),
        },
    ),
    Operation(
        call="POST /jobs/{job}/cancel",
        tag="Jobs",
        summary="Stop a job",
        parameters=(JOB,),
        replies={
            200: Reply(description="It was queued and never runs.", model=responses.Job),
            202: Reply(description="It runs, and will stop.", model=responses.Job, headers=ACCEPTED),
        },
        refusals=(409,),
    ),
    Operation(
        call="POST /jobs/{job}/retry",
        tag="Jobs",
        summary="Do an ended job again, as a new one",
        description="Of a document that ended `encrypted`, a password may be given.",
        parameters=(JOB,),
        body=Retry,
        body_required=False,
        replies={202: Reply(description="The new job; `retry_of` names the old one.", model=responses.Job, headers=ACCEPTED)},
        refusals=(409, 429),
    ),
    Operation(
        call="DELETE /jobs/{job}",
        tag="Jobs",
        summary="Forget an ended job, its result and its events",
        parameters=(JOB,),
        replies={200: Reply(description="Forgotten.", model=responses.Deleted)},
        refusals=(409,),
    ),
)
