"""The calls on the settings of collections, their index, and single chunks."""

from api.operations.documents import REMOVED
from api.operations.operation import (
    ACCEPTED,
    COLLECTION,
    DOCUMENT,
    IDEMPOTENCY_KEY,
    LIMIT,
    PREFER,
    WAIT,
    Example,
    Operation,
    Reply,
    in_path,
    in_query,
)
from api.schemas import responses
from api.schemas.requests import CollectionChanges, NewCollection, Reindex

POSITION = {"type": "integer", "minimum": 0}

OPERATIONS = (
    Operation(
        call="POST /collections",
        tag="Documents",
        summary="Make a collection with settings of its own",
        description="An upload makes one, too, with the server's settings.",
        body=NewCollection,
        examples={"small": Example(summary="Short chunks", body={"name": "minutes", "chunk_tokens": 100})},
        replies={201: Reply(description="It was made.", model=responses.Collection)},
        refusals=(404, 409),
    ),
    Operation(
        call="PATCH /collections/{collection}",
        tag="Documents",
        summary="Change how documents are cut that come from now on",
        description="A reindex cuts those that are there.",
        parameters=(COLLECTION,),
        body=CollectionChanges,
        examples={"smaller": Example(summary="Shorter chunks", body={"chunk_tokens": 120})},
        replies={200: Reply(description="The collection.", model=responses.Collection)},
    ),
    Operation(
        call="POST /collections/{collection}/reindex",
        tag="Documents",
        summary="Index all documents of a collection anew",
        description=(
            "With another embedding model, with other chunks, or because the index was lost. The old index answers until the new "
            "one is whole."
        ),
        parameters=(COLLECTION, IDEMPOTENCY_KEY, PREFER, WAIT),
        body=Reindex,
        examples={"again": Example(summary="As before", body={})},
        replies={
            200: Reply(description="The job, which has ended.", model=responses.Job),
            202: Reply(description="The job, which makes the index.", model=responses.Job, headers=ACCEPTED),
        },
        refusals=(409, 429),
    ),
    Operation(
        call="GET /documents/{document}/chunks",
        tag="Documents",
        summary="The chunks of a document, in order",
        parameters=(DOCUMENT, LIMIT, in_query("after", POSITION, "The `next` of the page before.")),
        replies={200: Reply(description="One page.", model=responses.ChunkList)},
    ),
    Operation(
        call="DELETE /documents/{document}/chunks/{position}",
        tag="Documents",
        summary="Forget one chunk of a document",
        description="Waits up to 30 s unless told otherwise.",
        parameters=(DOCUMENT, in_path("position", "Where it stands in the document, from 0.", "0"), PREFER, WAIT),
        replies=REMOVED,
        refusals=(429,),
    ),
)
