"""The calls that take documents, list, search and forget them."""

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
    in_query,
)
from api.schemas import responses
from api.schemas.requests import Search

MOST_FILES = 1000
TEXT = Example(summary="A text file", body="The archive is open on weekdays from nine to five.")
REMOVED = {
    200: Reply(description="Everything of it is gone.", model=responses.Deleted),
    202: Reply(description="It is out of search; this job removes the rest.", model=responses.Job, headers=ACCEPTED),
}

OPERATIONS = (
    Operation(
        call="POST /upload",
        tag="Documents",
        summary="One file into the default collection",
        parameters=(PREFER, WAIT),
        files=1,
        examples={"text": TEXT},
        replies={
            200: Reply(description="Its job has ended, or the same bytes were there already.", model=responses.Upload),
            202: Reply(description="It was taken.", model=responses.Upload, headers=ACCEPTED),
        },
        refusals=(429,),
    ),
    Operation(
        call="POST /collections/{collection}/documents",
        tag="Documents",
        summary="One or many files into a collection",
        description=(
            "Makes the collection when there is none of this name. One ingest job for each file, and a batch over these jobs. "
            "The same bytes in the same collection are one document; other bytes under the name of an earlier one are its next "
            "version. A zip or a tar is unpacked, and each member becomes a document. With `?batch=` the jobs join a batch that was "
            "opened before, by `POST /batches`; it stays open, and its webhook is told of its end."
        ),
        parameters=(
            COLLECTION,
            in_query("batch", {"type": "string"}, "The batch that the jobs join; 409 when it is sealed."),
            IDEMPOTENCY_KEY,
        ),
        files=MOST_FILES,
        examples={"text": TEXT},
        replies={
            200: Reply(description="All of them were there already.", model=responses.TakenList),
            202: Reply(description="They were taken.", model=responses.TakenList, headers=ACCEPTED),
        },
        refusals=(409, 429),
    ),
    Operation(
        call="GET /collections",
        tag="Documents",
        summary="All collections, by name",
        replies={200: Reply(description="All on one page.", model=responses.CollectionList)},
    ),
    Operation(
        call="GET /collections/{collection}",
        tag="Documents",
        summary="One collection",
        parameters=(COLLECTION,),
        replies={200: Reply(description="The collection.", model=responses.Collection)},
    ),
    Operation(
        call="GET /collections/{collection}/documents",
        tag="Documents",
        summary="The documents of a collection, newest first",
        parameters=(COLLECTION, LIMIT, in_query("after", {"type": "string"}, "The `next` of the page before.")),
        replies={200: Reply(description="One page.", model=responses.DocumentList)},
    ),
    Operation(
        call="POST /collections/{collection}/search",
        tag="Documents",
        summary="The passages that answer a query, by vectors, by words, or by both",
        description="Waits up to 30 s unless told otherwise.",
        parameters=(COLLECTION, PREFER, WAIT),
        body=Search,
        examples={
            "question": Example(summary="A question", body={"query": "When is the archive open?", "top_k": 2}),
            "filtered": Example(
                summary="Words, on first pages alone", body={"query": "archive", "mode": "keyword", "filter": {"page": 1}}
            ),
        },
        replies={
            200: Reply(description="The best first.", model=responses.HitList),
            202: Reply(description="Not found yet; the job will have `hits`.", model=responses.Job, headers=ACCEPTED),
        },
        refusals=(409, 429),
    ),
    Operation(
        call="DELETE /collections/{collection}",
        tag="Documents",
        summary="Forget a collection and all that is in it",
        description="Waits up to 30 s unless told otherwise.",
        parameters=(COLLECTION, PREFER, WAIT),
        replies=REMOVED,
        refusals=(429,),
    ),
    Operation(
        call="GET /documents/{document}",
        tag="Documents",
        summary="One document",
        parameters=(DOCUMENT,),
        replies={200: Reply(description="The document.", model=responses.Document)},
    ),
    Operation(
        call="DELETE /documents/{document}",
        tag="Documents",
        summary="Forget a document",
        description="Waits up to 30 s unless told otherwise.",
        parameters=(DOCUMENT, PREFER, WAIT),
        replies=REMOVED,
        refusals=(409, 429),
    ),
)
