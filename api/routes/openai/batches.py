"""``/v1/batches``: batches of requests in a file, each of which runs as a job."""

from dataclasses import replace

from flask import Blueprint, Response, jsonify, request

from api.caller import caller
from api.openai.pages import page_response
from api.openai.parsing import parse_openai_body
from api.openapi.operation import IDEMPOTENCY_KEY, OPENAI_TAG, Example, Operation, Reply, describe, in_path, in_query
from api.request_parsing import MAX_SHOWN, query_integer, read_idempotency_key
from api.responses import RouteResponse
from api.schemas import responses
from api.services import owner, services
from api.submission import submit_job
from shared.errors import Conflict, InvalidValue, NotFound
from shared.jobs.concurrency_fields import CONCURRENCY
from shared.jobs.start_time import delay_ms
from shared.jobs.submission import Submission
from shared.openai.batches import RequestBatch, batch_submission, job_of, public_id
from shared.openai.endpoints import ENDPOINTS
from shared.openai.files import BATCH_FILE_SECONDS, StoredFile
from shared.openai.requests import BatchRequest
from shared.openai.requests.batches import LONGEST_WINDOW

blueprint = Blueprint("openai_batches", __name__)

BATCH = in_path("batch", "Id of a batch.", "batch_01m84stetzyr7esggznw5rdjds")
INPUT = {"input_file_id": "file-01m84svpew31wcd91z2271xy1f", "endpoint": "/v1/completions", "completion_window": "24h"}


@blueprint.post("/v1/batches")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Run the requests of a file",
        description=(
            "Each request is a job of priority 8. Answers are in the file `output_file_id` of the batch once it has ended, and requests "
            "without an answer in `error_file_id`."
        ),
        parameters=(IDEMPOTENCY_KEY,),
        request_model=BatchRequest,
        examples={"batch": Example(summary="A batch of completions", body=INPUT)},
        replies={200: Reply(description="The batch.", model=responses.OpenAIBatch)},
        refusals=(404, 409, 429),
    )
)
def create_batch() -> RouteResponse:
    body = parse_openai_body(BatchRequest)
    submission = _submission(body, _input_file(body.input_file_id))
    # Without fields that are not given: another version may not know them, and has answered the same request.
    key, fingerprint = read_idempotency_key({**body.model_dump(exclude=CONCURRENCY), **body.concurrency})
    submitted = submit_job(replace(submission, idempotency_key=key, fingerprint=fingerprint))
    return _batch_response(_find_batch(public_id(submitted.job.id)))


@blueprint.get("/v1/batches")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List batches, newest first",
        parameters=(
            in_query("limit", {"type": "integer", "minimum": 1, "maximum": 100}, "Maximum number of batches; 20 if omitted.", 10),
            in_query("after", {"type": "string"}, "The `last_id` of the previous page."),
        ),
        replies={200: Reply(description="One page.", model=responses.OpenAIBatchList)},
    )
)
def list_batches() -> RouteResponse:
    after = request.args.get("after")
    if after is not None and job_of(after) is None:
        raise InvalidValue(f"after: must be the id of a batch, not {after[:MAX_SHOWN]!r}", param="after")
    batches = services().request_batches
    page, has_more = batches.list_batches(
        owner(), limit=query_integer("limit", 20, 1, 100), after=None if after is None else job_of(after)
    )
    now_ms = batches.now_ms()
    return page_response([batch.as_json(now_ms) for batch in page], has_more=has_more)


@blueprint.get("/v1/batches/<batch>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a batch",
        parameters=(BATCH,),
        replies={200: Reply(description="The batch.", model=responses.OpenAIBatch)},
    )
)
def show_batch(batch: str) -> RouteResponse:
    return _batch_response(_find_batch(batch))


@blueprint.post("/v1/batches/<batch>/cancel")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Cancel a batch",
        description="Requests that have ended keep their answers, which are in the output file once the batch is `cancelled`.",
        parameters=(BATCH,),
        replies={200: Reply(description="The batch, which is being cancelled or was cancelled.", model=responses.OpenAIBatch)},
        refusals=(409,),
    )
)
def cancel_batch(batch: str) -> RouteResponse:
    found = _find_batch(batch)
    outcome, _ = services().transitions.cancel(found.job.id, owner())
    found = _find_batch(batch)
    if outcome == "ended" and found.status != "cancelled":
        raise Conflict(f"Cannot cancel a batch with status '{found.status}'.", code="batch_ended", param="batch_id")
    return _batch_response(found)


def _find_batch(batch: str) -> RequestBatch:
    return services().request_batches.get(batch, owner())


def _batch_response(batch: RequestBatch) -> Response:
    return jsonify(batch.as_json(services().request_batches.now_ms()))


def _input_file(id: str) -> StoredFile:
    """The input file of a new batch. Raises InvalidValue."""
    context = services()
    try:
        file = context.file_store.get(id, owner())
    except NotFound as error:
        raise NotFound(f"input_file_id: {error.message}", code=error.code, param="input_file_id") from None
    if file.purpose != "batch":
        raise InvalidValue(
            f"input_file_id: the file must have been uploaded with purpose batch, not {file.purpose}", param="input_file_id"
        )
    limit = context.settings.max_batch_bytes
    if file.bytes > limit:
        raise InvalidValue(f"input_file_id: the file may have at most {limit} bytes, not {file.bytes}", param="input_file_id")
    return file


def _submission(body: BatchRequest, file: StoredFile) -> Submission:
    """The job of the batch. Raises InvalidValue."""
    if body.endpoint not in ENDPOINTS:
        raise InvalidValue(
            f"endpoint: must be one of {', '.join(ENDPOINTS)}, not {body.endpoint[:MAX_SHOWN]!r}", param="endpoint"
        )
    window_seconds = body.window_seconds()
    if window_seconds > LONGEST_WINDOW:
        raise InvalidValue(
            f"completion_window: may be at most {LONGEST_WINDOW // 86400}d, not {body.completion_window}",
            param="completion_window",
        )
    expiry, wait_ms = body.output_expires_after, delay_ms(body.not_before)
    submission = batch_submission(
        file,
        owner=owner(),
        endpoint=body.endpoint,
        window=body.completion_window,
        deadline_ms=services().request_batches.now_ms() + wait_ms + 1000 * window_seconds,
        window_seconds=window_seconds,
        wait_ms=wait_ms,
        output_seconds=expiry.seconds if expiry else BATCH_FILE_SECONDS,
        rights=caller().rights,
        concurrency=body.concurrency,
    )
    return replace(submission, metadata=body.metadata or {})
