"""``/v1/vector_stores/<store>/file_batches``: files that are put into a vector store together."""

from flask import Blueprint, jsonify

from api.openai.pages import page_response, poll_response
from api.openai.parsing import parse_openai_body
from api.openai.vector_store_batches import describe_file_batch, documents_of_batch, find_file_batch
from api.openai.vector_store_files import add_files, describe_file, document_file_id
from api.openai.vector_store_parameters import PAGE, STATUS_FILTER, STORE
from api.openai.vector_stores import find_store, query_page
from api.openapi.operation import OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe, in_path
from api.request_parsing import query_choice
from api.responses import RouteResponse
from api.schemas import responses
from api.services import owner, services
from shared.openai.requests.vector_stores import FileBatchRequest
from shared.openai.vector_stores import FILE_STATUSES, file_batch_id, file_status

blueprint = Blueprint("openai_vector_store_batches", __name__)

BATCH = in_path("file_batch", "Id of a file batch.", "vsfb_01m84stetzyr7esggznw5rdjds")
BATCH_REPLY = Reply(description="The file batch.", model=responses.VectorStoreFileBatch, headers=OPENAI_HEADERS)


@blueprint.post("/v1/vector_stores/<store>/file_batches")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Put files into a vector store",
        description="The batch is also a batch of the native API.",
        parameters=(STORE,),
        request_model=FileBatchRequest,
        examples={"files": Example(summary="A file", body={"file_ids": ["file-01m84svpew31wcd91z2271xy1f"]})},
        replies={200: BATCH_REPLY},
        refusals=(404, 409, 429),
    )
)
def create_file_batch(store: str) -> RouteResponse:
    collection, body = find_store(store), parse_openai_body(FileBatchRequest)
    param = "file_ids" if body.files is None else "files"
    job = add_files(collection, body.entries, body.strategies, param=param, concurrency=body.concurrency)
    return jsonify(describe_file_batch(find_file_batch(collection, file_batch_id(job))))


@blueprint.get("/v1/vector_stores/<store>/file_batches/<file_batch>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a file batch",
        parameters=(STORE, BATCH),
        replies={200: BATCH_REPLY},
    )
)
def show_file_batch(store: str, file_batch: str) -> RouteResponse:
    return poll_response(describe_file_batch(find_file_batch(find_store(store, even_if_expired=True), file_batch)))


@blueprint.post("/v1/vector_stores/<store>/file_batches/<file_batch>/cancel")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Cancel a file batch",
        description="Files that are completed stay in the vector store.",
        parameters=(STORE, BATCH),
        replies={200: BATCH_REPLY},
    )
)
def cancel_file_batch(store: str, file_batch: str) -> RouteResponse:
    collection = find_store(store, even_if_expired=True)
    services().transitions.cancel(find_file_batch(collection, file_batch).id, owner())
    return jsonify(describe_file_batch(find_file_batch(collection, file_batch)))


@blueprint.get("/v1/vector_stores/<store>/file_batches/<file_batch>/files")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List the files of a file batch",
        parameters=(STORE, BATCH, *PAGE, STATUS_FILTER),
        replies={200: Reply(description="One page.", model=responses.VectorStoreFileList)},
    )
)
def list_file_batch_files(store: str, file_batch: str) -> RouteResponse:
    collection = find_store(store, even_if_expired=True)
    status = query_choice("filter", FILE_STATUSES)
    documents = sorted(documents_of_batch(find_file_batch(collection, file_batch)), key=lambda document: document.id)
    chosen = [each for each in documents if status in (None, file_status(each.status, each.reason))]
    page, has_more = query_page(chosen, document_file_id)
    return page_response([describe_file(document, collection) for document in page], has_more=has_more)
