"""Whether the server lives, and whether it can work."""

from api import schemas
from api.operations.operation import Operation, Reply

OPERATIONS = (
    Operation(
        call="GET /health/live",
        tag="Models and health",
        summary="Whether this process answers",
        replies={200: Reply(description="It does.", model=schemas.Alive)},
        open=True,
    ),
    Operation(
        call="GET /health/ready",
        tag="Models and health",
        summary="Whether every kind of job can be done",
        replies={
            200: Reply(
                description="Yes.",
                model=schemas.Readiness,
                example={"status": "ready", "waiting_for": [], "workers": 4},
            ),
            503: Reply(description="No; `waiting_for` names what is awaited.", model=schemas.Readiness),
        },
        open=True,
    ),
)
