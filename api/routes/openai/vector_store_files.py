"""``/v1/vector_stores/<store>/files``: documents of a collection as OpenAI's clients see them."""

import json
from collections.abc import Iterator
from typing import BinaryIO

from flask import Blueprint, Response, jsonify

from api.openai.pages import page_response, poll_response
from api.openai.parsing import parse_openai_body
from api.openai.vector_store_files import (
    add_single_file,
    describe_file,
    find_document,
    list_store_files,
    remove_document,
    set_attributes,
)
from api.openai.vector_store_parameters import PAGE, STATUS_FILTER, STORE
from api.openai.vector_stores import find_store
from api.openapi.operation import OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe, in_path
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services
from shared.errors import Conflict
from shared.openai.requests.vector_stores import AttributeChanges, BatchFile, VectorStoreFileRequest

blueprint = Blueprint("openai_vector_store_files", __name__)

FILE = in_path("file", "Id of a file of the vector store.", "file-01m84svpew31wcd91z2271xy1f")
FILE_REPLY = Reply(description="The file.", model=responses.VectorStoreFile, headers=OPENAI_HEADERS)
EXAMPLE = {"file_id": "file-01m84svpew31wcd91z2271xy1f", "attributes": {"year": 2026}}


@blueprint.post("/v1/vector_stores/<store>/files")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Put a file into a vector store",
        description="The file becomes a document. A file that is in the vector store already is not read again, unless reading it failed.",
        parameters=(STORE,),
        request_model=VectorStoreFileRequest,
        examples={"file": Example(summary="A file with an attribute", body=EXAMPLE)},
        replies={200: FILE_REPLY},
        refusals=(404, 409, 429),
    )
)
def add_vector_store_file(store: str) -> RouteResponse:
    collection, body = find_store(store), parse_openai_body(VectorStoreFileRequest)
    entry = BatchFile(file_id=body.file_id, attributes=body.attributes, chunking_strategy=body.chunking_strategy)
    document = add_single_file(collection, entry, body.concurrency)
    return jsonify(describe_file(document, find_store(store)))


@blueprint.get("/v1/vector_stores/<store>/files")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List the files of a vector store",
        parameters=(STORE, *PAGE, STATUS_FILTER),
        replies={200: Reply(description="One page.", model=responses.VectorStoreFileList)},
    )
)
def list_vector_store_files(store: str) -> RouteResponse:
    collection = find_store(store, even_if_expired=True)
    documents, has_more = list_store_files(collection)
    return page_response([describe_file(document, collection) for document in documents], has_more=has_more)


@blueprint.get("/v1/vector_stores/<store>/files/<file>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a file of a vector store",
        parameters=(STORE, FILE),
        replies={200: FILE_REPLY},
    )
)
def show_vector_store_file(store: str, file: str) -> RouteResponse:
    collection = find_store(store, even_if_expired=True)
    return poll_response(describe_file(find_document(collection, file), collection))


@blueprint.post("/v1/vector_stores/<store>/files/<file>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Change the attributes of a file",
        parameters=(STORE, FILE),
        request_model=AttributeChanges,
        examples={"year": Example(summary="Another year", body={"attributes": {"year": 2025}})},
        replies={200: FILE_REPLY},
    )
)
def change_vector_store_file(store: str, file: str) -> RouteResponse:
    collection, body = find_store(store), parse_openai_body(AttributeChanges)
    document = find_document(collection, file)
    if "attributes" in body.model_fields_set:
        document = set_attributes(document, collection, body.attributes or {})
    return jsonify(describe_file(document, collection))


@blueprint.delete("/v1/vector_stores/<store>/files/<file>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Remove a file from a vector store",
        description="Its document is deleted; the file of `/v1/files` stays.",
        parameters=(STORE, FILE),
        replies={200: Reply(description="The file is removed.", model=responses.VectorStoreDeletion)},
        refusals=(409, 429),
    )
)
def remove_vector_store_file(store: str, file: str) -> RouteResponse:
    remove_document(find_document(find_store(store, even_if_expired=True), file))
    return jsonify({"id": file, "object": "vector_store.file.deleted", "deleted": True})


@blueprint.get("/v1/vector_stores/<store>/files/<file>/content")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get the text of a file",
        description="The text of each page, as it was read from the file.",
        parameters=(STORE, FILE),
        replies={200: Reply(description="The text.", model=responses.VectorStoreFileContent)},
        refusals=(409,),
    )
)
def show_vector_store_file_content(store: str, file: str) -> RouteResponse:
    document = find_document(find_store(store, even_if_expired=True), file)
    if document.status != "ready":
        raise Conflict(
            f"file_id: file {file} has no text, as it is {document.status}", code="file_not_completed", param="file_id"
        )
    try:
        pages = services().files.path(document.id, "pages.jsonl").open("rb")
    except FileNotFoundError:
        raise Conflict(f"file_id: file {file} is being deleted", code="file_not_completed", param="file_id") from None
    return Response(_content(pages), mimetype="application/json")


def _content(pages: BinaryIO) -> Iterator[bytes]:
    """The text page by page, so that a long document is never in memory. Closes the file."""
    yield b'{"object": "vector_store.file_content.page", "data": ['
    with pages:
        for number, line in enumerate(pages):
            page = json.loads(line)
            part = {"type": "text", "text": page["text"], "page": page["number"]}
            yield (b", " if number else b"") + json.dumps(part, ensure_ascii=False).encode("utf-8", "replace")
    yield b'], "has_more": false, "next_page": null}'
