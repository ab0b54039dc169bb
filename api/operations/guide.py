"""The calls on chunks that the beginners' guide has."""

from api.operations.operation import PREFER, WAIT, Operation, Reply, in_path
from api.schemas import responses
from api.schemas.requests import ChunkIds, Clear, Removal

RUNS = Reply(description="It is not done yet; this job is at it.", model=responses.Job, headers=("Location", "Retry-After"))
CHUNK = in_path("chunk", "The id of a chunk.", "doc_01m84svpew31wcd91z2271xy1f:0")

OPERATIONS = (
    Operation(
        call="POST /get_texts",
        tag="The guide's calls",
        summary="Chunks by their ids",
        body=ChunkIds,
        replies={200: Reply(description="Those that are there.", model=responses.GuideTexts)},
    ),
    Operation(
        call="DELETE /delete_document",
        tag="The guide's calls",
        summary="Forget chunks, or whole documents, by their ids",
        parameters=(PREFER, WAIT),
        body=ChunkIds,
        replies={200: Reply(description="Those that were there are gone.", model=responses.GuideDeleted), 202: RUNS},
        refusals=(404, 409, 429),
    ),
    Operation(
        call="DELETE /delete_chunk/{chunk}",
        tag="The guide's calls",
        summary="Forget one chunk",
        parameters=(CHUNK, PREFER, WAIT),
        replies={200: Reply(description="It is gone.", model=responses.GuideDeletedChunk), 202: RUNS},
        refusals=(409, 429),
    ),
    Operation(
        call="POST /remove",
        tag="The guide's calls",
        summary="Forget chunks by their ids, or by what a search finds",
        parameters=(PREFER, WAIT),
        body=Removal,
        replies={200: Reply(description="They are gone.", model=responses.GuideRemoved), 202: RUNS},
        refusals=(404, 409, 429),
    ),
    Operation(
        call="POST /clear_db",
        tag="The guide's calls",
        summary="Forget all that is in the default collection",
        parameters=(PREFER, WAIT),
        body=Clear,
        replies={200: Reply(description="It is empty.", model=responses.GuideCleared), 202: RUNS},
        refusals=(409, 429),
    ),
)
