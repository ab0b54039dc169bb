"""``/v1/files``: files of an owner, such as the inputs and outputs of batches."""

from typing import get_args
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request

from api.openai.file_upload import receive_file
from api.openai.pages import page_response
from api.openai.vector_store_files import remove_from_stores
from api.openapi.operation import OPENAI_TAG, Example, Operation, Reply, describe, in_path, in_query
from api.request_parsing import MAX_SHOWN, query_choice, query_integer
from api.responses import RouteResponse
from api.schemas import responses
from api.services import owner, services
from shared.errors import InvalidValue
from shared.openai.files import BATCH_OUTPUT, Purpose, copy_blocks, is_file_id

blueprint = Blueprint("openai_files", __name__)

FILE = in_path("file", "Id of a file.", "file-01m84svpew31wcd91z2271xy1f")
PURPOSES = get_args(Purpose)
MAX_LISTED = 10_000
ORDERS = ("asc", "desc")
REQUEST = '{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "One, two,"}}\n'


@blueprint.post("/v1/files")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Upload a file",
        description=(
            "The file is written to the disk as it arrives, and counts against `stored_bytes` of its owner. Files with purpose `batch` "
            "expire after 30 days, others never, unless `expires_after` says otherwise."
        ),
        files=1,
        form_fields={
            "purpose": {"enum": list(PURPOSES), "description": "`batch` for the input of a batch.", "examples": ["batch"]},
            "expires_after[anchor]": {"enum": ["created_at"]},
            "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
        },
        examples={"requests": Example(summary="A request of a batch", body=REQUEST)},
        replies={200: Reply(description="The file.", model=responses.OpenAIFile)},
        refusals=(409,),
    )
)
def upload_file() -> RouteResponse:
    return jsonify(receive_file().as_json())


@blueprint.get("/v1/files")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List files",
        parameters=(
            in_query(
                "limit", {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}, "Maximum number of files; all if omitted."
            ),
            in_query("after", {"type": "string"}, "The `last_id` of the previous page."),
            in_query("order", {"enum": list(ORDERS)}, "By time of creation; `desc`, newest first, if omitted.", "asc"),
            in_query("purpose", {"enum": [*PURPOSES, BATCH_OUTPUT]}, "Only files with this purpose.", "batch"),
        ),
        replies={200: Reply(description="One page.", model=responses.OpenAIFileList)},
    )
)
def list_files() -> RouteResponse:
    after = request.args.get("after")
    if after is not None and not is_file_id(after):
        raise InvalidValue(f"after: must be the id of a file, not {after[:MAX_SHOWN]!r}", param="after")
    files, has_more = services().file_store.list_files(
        owner(),
        limit=query_integer("limit", MAX_LISTED, 1, MAX_LISTED),
        after=after,
        ascending=query_choice("order", ORDERS) == "asc",
        purpose=query_choice("purpose", (*PURPOSES, BATCH_OUTPUT)),
    )
    return page_response([file.as_json() for file in files], has_more=has_more)


@blueprint.get("/v1/files/<file>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a file's description",
        parameters=(FILE,),
        replies={200: Reply(description="The file.", model=responses.OpenAIFile)},
    )
)
def show_file(file: str) -> RouteResponse:
    return jsonify(services().file_store.get(file, owner()).as_json())


@blueprint.get("/v1/files/<file>/content")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a file's content",
        parameters=(FILE,),
        replies={200: Reply(description="The bytes of the file.", media_type="application/octet-stream")},
    )
)
def show_file_content(file: str) -> RouteResponse:
    store = services().file_store
    found = store.get(file, owner())
    response = Response(copy_blocks(store.path(found).open("rb")), mimetype="application/octet-stream")
    response.content_length = found.bytes
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(found.filename, safe='')}"
    return response


@blueprint.delete("/v1/files/<file>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Delete a file",
        description="It is also removed from all vector stores. A batch that has started keeps its input.",
        parameters=(FILE,),
        replies={200: Reply(description="The file is deleted.", model=responses.OpenAIFileDeletion)},
    )
)
def delete_file(file: str) -> RouteResponse:
    services().file_store.get(file, owner())
    remove_from_stores(file)
    services().file_store.remove(file, owner())
    return jsonify({"id": file, "object": "file", "deleted": True})
