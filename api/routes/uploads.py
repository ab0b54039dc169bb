"""``/upload`` and uploads into a collection."""

from typing import Any

from flask import Blueprint, jsonify, request

from api.job_webhook import job_webhook
from api.openapi.operation import (
    COLLECTION,
    IDEMPOTENCY_KEY,
    PREFER,
    REPLAYABLE_JOB_HEADERS,
    WAIT,
    Example,
    Operation,
    Reply,
    describe,
    in_query,
)
from api.request_parsing import (
    MAX_FILES,
    check_form_fields,
    form_concurrency,
    form_files,
    form_metadata,
    form_password,
    form_replace,
    form_start_time,
    form_webhook,
    parse_body,
    requested_timeout,
)
from api.responses import RETRY_AFTER, RouteResponse, job_json, mark_replay
from api.schemas import responses
from api.schemas.requests.documents import DocumentUrls
from api.services import owner, services
from api.submission import require_disk_space, written_job
from api.uploads import UploadOptions, UploadResult, UploadService
from shared.documents.models import ENDED, Document, check_collection_name
from shared.errors import InvalidValue
from shared.jobs.models import Job
from shared.jobs.start_time import delay_ms

blueprint = Blueprint("uploads", __name__)

TAG = "Documents"
EXAMPLES = {"text": Example(summary="A text file", body="The archive is open on weekdays from nine to five.")}


@blueprint.post("/upload")
@describe(
    Operation(
        tag=TAG,
        summary="Upload one file into the default collection",
        parameters=(PREFER, WAIT),
        files=1,
        examples=EXAMPLES,
        replies={
            200: Reply(description="The job has ended, or the collection already had these bytes.", model=responses.Upload),
            202: Reply(description="The file was accepted.", model=responses.Upload, headers=REPLAYABLE_JOB_HEADERS),
        },
        refusals=(409,),
    )
)
def upload() -> RouteResponse:
    """The upload call of the chat_gp_me tutorial. It waits only if the client asks for it."""
    require_disk_space(request.content_length or 0)
    uploads = UploadService(services(), owner())
    timeout = requested_timeout(0)
    options = _upload_options()
    [received] = uploads.receive_files(form_files(1))
    document, job = uploads.upload_file(received, options)
    if job is not None and timeout:
        job = services().job_waiter.wait_until_final(job.id, timeout) or job
        document = document and services().documents.get(owner(), document.id)
    content = {
        "message": _upload_message(received.name, document),
        "document_ids": _chunk_ids(document),
        "document": document and document.as_json(),
        "job": job and job_json(job),
    }
    return _upload_response(content, job)


@blueprint.post("/collections/<collection>/documents")
@describe(
    Operation(
        tag=TAG,
        summary="Upload files into a collection, or let the server fetch them",
        description=(
            "Creates the collection if it does not exist. Submits one ingest job per file, and a batch over these jobs. The same "
            "bytes in the same collection are one document; other bytes with the name of an earlier document are its next "
            "version, and `replaces` is the id of the earlier one. With `replace` set to false, such files are not added, but "
            "listed in `name_conflicts`. A zip or tar archive is unpacked, and each member becomes a document. "
            "With a JSON body, the server fetches the files from its `urls`, one job each. "
            "With `?batch=` the jobs join a batch "
            "that `POST /batches` opened; the batch stays open, and its webhook is notified when it ends."
        ),
        parameters=(
            COLLECTION,
            in_query("batch", {"type": "string"}, "The open batch that the jobs join; 409 if it is sealed."),
            IDEMPOTENCY_KEY,
        ),
        files=MAX_FILES,
        json_instead=DocumentUrls,
        examples=EXAMPLES,
        replies={
            200: Reply(
                description="No job was created: the collection already had all files, or they were not to replace others.",
                model=responses.UploadList,
            ),
            202: Reply(description="The files were accepted.", model=responses.UploadList, headers=REPLAYABLE_JOB_HEADERS),
        },
        refusals=(409, 429),
    )
)
def upload_documents(collection: str) -> RouteResponse:
    require_disk_space(request.content_length or 0)
    uploads = UploadService(services(), owner())
    check_collection_name(collection)
    batch_id = request.args.get("batch")
    if batch_id is not None:
        uploads.keep_batch_open(batch_id)
    urls, options = _url_options() if request.is_json else (None, _upload_options())
    if batch_id is not None and options.webhook is not None:
        raise InvalidValue("webhook: a batch gets its webhook when it is opened with POST /batches", param="webhook")
    if urls is not None:
        result = uploads.fetch_urls(collection, urls, options, batch_id)
    else:
        result = uploads.upload_files(collection, uploads.receive_files(form_files(MAX_FILES)), options, batch_id)
    batch = written_job(result.batch)
    return _upload_response(_upload_list(result, batch), batch, replayed=result.batch.replayed)


def _upload_options() -> UploadOptions:
    check_form_fields()
    not_before, (concurrency_key, concurrency_limit) = form_start_time(), form_concurrency()
    return UploadOptions(
        webhook=job_webhook(form_webhook()),
        metadata=form_metadata(),
        password=form_password(),
        replace=form_replace(),
        not_before=not_before,
        wait_ms=delay_ms(not_before),
        concurrency_key=concurrency_key,
        concurrency_limit=concurrency_limit,
    )


def _url_options() -> tuple[list[str], UploadOptions]:
    body = parse_body(DocumentUrls)
    return body.urls, UploadOptions(
        webhook=job_webhook(body.webhook),
        metadata=body.metadata,
        replace=body.replace,
        not_before=body.not_before,
        wait_ms=delay_ms(body.not_before),
        **body.concurrency,
    )


def _upload_message(name: str, document: Document | None) -> str:
    if document is not None and document.status in ENDED and document.status != "ready":
        return f"{name} was received, but cannot be searched: {document.status}"
    return f"{name} was accepted"


def _chunk_ids(document: Document | None) -> list[str]:
    if document is None or document.status != "ready":
        return []
    return [f"{document.id}:{position}" for position in range(document.chunks)]


def _upload_list(result: UploadResult, batch: Job) -> dict[str, Any]:
    documents = [
        {
            **document.as_json(),
            "job": job.id if job else document.job_id,
            "duplicate": job is None or job.parent != batch.id,
        }
        for document, job in result.documents
    ]
    return {
        "object": "list",
        "batch": job_json(batch),
        "data": documents,
        "archives": result.archives,
        "fetches": result.fetches,
        "name_conflicts": [
            {"name": conflict.details["name"], "document_id": conflict.details["document"]} for conflict in result.name_conflicts
        ],
        "has_more": False,
        "next": None,
    }


def _upload_response(content: dict[str, Any], job: Job | None, *, replayed: bool = False) -> RouteResponse:
    response = mark_replay(jsonify(content), replayed)
    if job is None or job.status.final:
        return response
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = RETRY_AFTER
    return response, 202
