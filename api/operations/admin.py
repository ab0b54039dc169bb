"""The calls of administrators."""

from api.operations.operation import JOB, Operation, Reply, in_query
from api.schemas import responses

ONLY = "Wants a key made with `--admin`."

OPERATIONS = (
    Operation(
        call="GET /admin/dead-letters",
        tag="The dead",
        summary="Jobs whose workers died again and again, the latest first",
        description=ONLY,
        parameters=(
            in_query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "How many at most.", 10),
        ),
        replies={200: Reply(description="All on one page.", model=responses.DeadJobList)},
    ),
    Operation(
        call="POST /admin/dead-letters/{job}/replay",
        tag="The dead",
        summary="Do it again, as a new job",
        description=ONLY,
        parameters=(JOB,),
        replies={202: Reply(description="The new job.", model=responses.Job, headers=("Location", "Retry-After"))},
        refusals=(429,),
    ),
    Operation(
        call="DELETE /admin/dead-letters/{job}",
        tag="The dead",
        summary="Take it off the list",
        description=ONLY,
        parameters=(JOB,),
        replies={200: Reply(description="It is off; its record stays.", model=responses.Dropped)},
    ),
)
