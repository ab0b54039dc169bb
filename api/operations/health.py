"""Whether the server lives, and whether it can work."""

from api.operations.operation import Operation, Reply
from api.schemas import responses

OPERATIONS = (
    Operation(
        call="GET /health/live",
        tag="Models and health",
        summary="Whether this process answers",
        replies={200: Reply(description="It does.", model=responses.Alive)},
        open=True,
    ),
    Operation(
        call="GET /health/ready",
        tag="Models and health",
        summary="Whether every kind of job can be done",
        replies={
            200: Reply(
                description="Yes.",
                model=responses.Readiness,
                example={"status": "ready", "waiting_for": [], "workers": 4},
            ),
            503: Reply(description="No; `waiting_for` names what is awaited.", model=responses.Readiness),
        },
        open=True,
    ),
)
