"""The call that lists models."""

from api.operations.operation import Operation, Reply
from api.schemas import responses

OPERATIONS = (
    Operation(
        call="GET /models",
        tag="Models and health",
        summary="The models, and what their workers say of themselves",
        description="A plain JSON list.",
        replies={200: Reply(description="All models.", model=responses.Model, many=True)},
    ),
)
