"""``/v1/vector_stores``: collections as OpenAI's clients see them."""

from flask import Blueprint, jsonify

from api.deletion import submit_deletion, wait_for_deletions
from api.openai.pages import page_response
from api.openai.parsing import parse_openai_body
from api.openai.vector_store_files import add_files
from api.openai.vector_store_parameters import PAGE, STORE
from api.openai.vector_store_search import search_store
from api.openai.vector_stores import (
    change_store,
    create_store,
    describe_store,
    find_store,
    query_page,
)
from api.openapi.operation import OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from api.services import owner, services
from api.submission import SHORT_JOB_SECONDS
from shared.openai.requests.vector_stores import BatchFile, VectorStoreChanges, VectorStoreRequest, VectorStoreSearch
from shared.openai.vector_stores import store_id

blueprint = Blueprint("openai_vector_stores", __name__)

FILTER = {"type": "eq", "key": "year", "value": 2026}


@blueprint.post("/v1/vector_stores")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Create a vector store",
        description="It is a collection, to which the native calls apply too.",
        request_model=VectorStoreRequest,
        examples={"minutes": Example(summary="An empty one", body={"name": "Minutes", "metadata": {"team": "archive"}})},
        replies={200: Reply(description="The vector store.", model=responses.VectorStore, headers=OPENAI_HEADERS)},
        refusals=(404, 409, 429),
    )
)
def create_vector_store() -> RouteResponse:
    body = parse_openai_body(VectorStoreRequest)
    collection = create_store(body)
    if body.file_ids:
        try:
            files = [BatchFile(file_id=id) for id in dict.fromkeys(body.file_ids)]
            add_files(collection, files, (), param="file_ids", concurrency=body.concurrency)
        except BaseException:
            submit_deletion({"collection_id": collection.id})
            services().documents.drop_collection(collection)
            raise
    return jsonify(describe_store(collection))


@blueprint.get("/v1/vector_stores")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List vector stores",
        description="All collections of the owner.",
        parameters=PAGE,
        replies={200: Reply(description="One page.", model=responses.VectorStoreList)},
    )
)
def list_vector_stores() -> RouteResponse:
    collections = sorted(services().documents.list_collections(owner()), key=lambda collection: collection.id)
    page, has_more = query_page(collections, lambda collection: store_id(collection.id))
    return page_response([describe_store(collection) for collection in page], has_more=has_more)


@blueprint.get("/v1/vector_stores/<store>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a vector store",
        parameters=(STORE,),
        replies={200: Reply(description="The vector store.", model=responses.VectorStore)},
    )
)
def show_vector_store(store: str) -> RouteResponse:
    return jsonify(describe_store(find_store(store, even_if_expired=True)))


@blueprint.post("/v1/vector_stores/<store>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Change a vector store",
        description="Fields that the request does not have stay.",
        parameters=(STORE,),
        request_model=VectorStoreChanges,
        examples={"name": Example(summary="A new name", body={"name": "Minutes of 2026"})},
        replies={200: Reply(description="The vector store.", model=responses.VectorStore, headers=OPENAI_HEADERS)},
    )
)
def change_vector_store(store: str) -> RouteResponse:
    return jsonify(describe_store(change_store(find_store(store), parse_openai_body(VectorStoreChanges))))


@blueprint.delete("/v1/vector_stores/<store>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Delete a vector store",
        description="Its documents are deleted; files of `/v1/files` stay.",
        parameters=(STORE,),
        replies={200: Reply(description="The vector store is deleted.", model=responses.VectorStoreDeletion)},
        refusals=(429,),
    )
)
def delete_vector_store(store: str) -> RouteResponse:
    collection = find_store(store, even_if_expired=True)
    # The job comes first: if it is rejected, a hidden collection would keep its data forever.
    job = submit_deletion({"collection_id": collection.id})
    services().documents.drop_collection(collection)
    wait_for_deletions([job], SHORT_JOB_SECONDS)
    return jsonify({"id": store, "object": "vector_store.deleted", "deleted": True})


@blueprint.post("/v1/vector_stores/<store>/search")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Search a vector store",
        description="By vectors and by keywords. The best score is 1.",
        parameters=(STORE,),
        request_model=VectorStoreSearch,
        examples={"filtered": Example(summary="With a filter", body={"query": "When is it open?", "filters": FILTER})},
        replies={200: Reply(description="The passages.", model=responses.VectorStoreHits, headers=OPENAI_HEADERS)},
        refusals=(404, 409, 429, 504),
    )
)
def search_vector_store(store: str) -> RouteResponse:
    return jsonify(search_store(find_store(store), parse_openai_body(VectorStoreSearch)))
