"""The calls on chunks that the beginners' guide has."""

from api import schemas
from api.bodies import ChunkIds, Clear, Removal
from api.operations.operation import PREFER, WAIT, Operation, Reply, in_path

RUNS = Reply(description="It is not done yet; this job is at it.", model=schemas.Job, headers=("Location", "Retry-After"))
CHUNK = in_path("chunk", "The id of a chunk.", "doc_01m84svpew31wcd91z2271xy1f:0")

OPERATIONS = (
    Operation(
        call="POST /get_texts",
        tag="The guide's calls",
        summary="Chunks by their ids",
        body=ChunkIds,
        replies={200: Reply(description="Those that are there.", model=schemas.GuideTexts)},
    ),
    Operation(
        call="DELETE /delete_document",
        tag="The guide's calls",
        summary="Forget chunks, or whole documents, by their ids",
        parameters=(PREFER, WAIT),
        body=ChunkIds,
        replies={200: Reply(description="Those that were there are gone.", model=schemas.GuideDeleted), 202: RUNS},
        refusals=(404, 409, 429),
    ),
    Operation(
        call="DELETE /delete_chunk/{chunk}",
        tag="The guide's calls",
        summary="Forget one chunk",
        parameters=(CHUNK, PREFER, WAIT),
        replies={200: Reply(description="It is gone.", model=schemas.GuideDeletedChunk), 202: RUNS},
        refusals=(409, 429),
    ),
    Operation(
        call="POST /remove",
        tag="The guide's calls",
        summary="Forget chunks by their ids, or by what a search finds",
        parameters=(PREFER, WAIT),
        body=Removal,
        replies={200: Reply(description="They are gone.", model=schemas.GuideRemoved), 202: RUNS},
        refusals=(404, 409, 429),
    ),
    Operation(
        call="POST /clear_db",
        tag="The guide's calls",
        summary="Forget all that is in the default collection",
        parameters=(PREFER, WAIT),
        body=Clear,
        replies={200: Reply(description="It is empty.", model=schemas.GuideCleared), 202: RUNS},
        refusals=(409, 429),
    ),
)
