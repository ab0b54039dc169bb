"""The call that Prometheus makes."""

from api.operations.operation import Operation, Reply

OPERATIONS = (
    Operation(
        call="GET /metrics",
        tag="Models and health",
        summary="Metrics of jobs, queues, workers, engines, GPUs and answers",
        description="Wants a key made with `--admin`, as soon as there is a key.",
        replies={200: Reply(description="In the text form of Prometheus.", media_type="text/plain")},
    ),
)
