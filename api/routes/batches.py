"""``/batches``: batches that a client opens itself, so that one job counts uploads of many requests."""

from flask import Blueprint, jsonify

from api.job_webhook import job_webhook
from api.openapi.operation import IDEMPOTENCY_KEY, JOB, REPLAYABLE_JOB_HEADERS, Example, Operation, Reply, describe
from api.owned_jobs import find_owned_job
from api.request_parsing import parse_optional_body, read_idempotency_key
from api.responses import RouteResponse, final_or_accepted, job_json, mark_replay
from api.schemas import responses
from api.schemas.requests.jobs import NewBatch
from api.services import owner, services
from api.submission import require_disk_space, written_job
from shared.errors import Conflict
from shared.jobs.start_time import delay_ms

blueprint = Blueprint("batches", __name__)

TAG = "Documents"


@blueprint.post("/batches")
@describe(
    Operation(
        tag=TAG,
        summary="Open a batch for uploads that are counted together",
        description=(
            "A batch is a job: clients can poll, follow and cancel it. Uploads with `?batch=` join it until it is sealed, and it "
            "ends when the last of its jobs ends. A batch that is left open is sealed one hour (`ENGINEHOUSE_SEAL_SECONDS`) after "
            "all its jobs have ended."
        ),
        parameters=(IDEMPOTENCY_KEY,),
        request_model=NewBatch,
        body_required=False,
        examples={
            "plain": Example(summary="A batch without options", body={}),
            "named": Example(summary="A batch with metadata", body={"metadata": {"from": "scanner-2"}}),
        },
        replies={
            201: Reply(description="The open batch.", model=responses.Job, headers=("Location", "Idempotent-Replay")),
        },
        refusals=(409,),
    )
)
def open_batch() -> RouteResponse:
    require_disk_space()
    body = parse_optional_body(NewBatch)
    webhook = job_webhook(body.webhook)
    # A field that is new and not given must not change the fingerprint of a request that another version has answered.
    content = {name: value for name, value in body.model_dump().items() if name != "not_before" or value is not None}
    idempotency = read_idempotency_key(content)
    batch = services().submitter.open_batch(
        owner(),
        spec={},
        webhook=webhook,
        metadata=body.metadata,
        wait_ms=delay_ms(body.not_before),
        idempotency_key=idempotency.key,
        fingerprint=idempotency.fingerprint,
    )
    response = mark_replay(jsonify(job_json(written_job(batch))), batch.replayed)
    response.headers["Location"] = f"/jobs/{batch.id}"
    return response, 201


@blueprint.post("/jobs/<job>/seal")
@describe(
    Operation(
        tag=TAG,
        summary="Seal a batch, so that no more jobs can join it",
        description="Sealing a sealed batch has no effect.",
        parameters=(JOB,),
        replies={
            200: Reply(description="The batch, which has ended with all its jobs.", model=responses.Job),
            202: Reply(
                description="The batch, which ends with the last of its jobs.",
                model=responses.Job,
                headers=REPLAYABLE_JOB_HEADERS,
            ),
        },
        refusals=(409,),
    )
)
def seal_batch(job: str) -> RouteResponse:
    found = find_owned_job(job)
    if found.kind != "batch":
        raise Conflict(
            f"Job {job} is a job of kind {found.kind} and not a batch. Only batches can be sealed.", code="not_a_batch"
        )
    services().submitter.seal_batch(job)
    return final_or_accepted(find_owned_job(job))
