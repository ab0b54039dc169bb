"""The call that submits a generation."""

from api.operations.operation import ACCEPTED, IDEMPOTENCY_KEY, PREFER, WAIT, Example, Operation, Reply
from api.schemas import responses
from api.schemas.requests import Generate

OPERATIONS = (
    Operation(
        call="POST /generate",
        tag="Generation",
        summary="Submit a generation",
        description="Answers at once with a job to poll, to wait for or to follow; with `text` it waits for the answer.",
        parameters=(PREFER, WAIT, IDEMPOTENCY_KEY),
        body=Generate,
        examples={
            "messages": Example(
                summary="A conversation, through the model's chat template",
                body={"messages": [{"role": "user", "content": "What is the capital of France?"}]},
            ),
            "prompt": Example(
                summary="A prompt as it is, with sampling",
                body={"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0.2, "seed": 7, "stop": ["\n\n"]},
            ),
            "collection": Example(
                summary="An answer from documents, with citations",
                body={"messages": [{"role": "user", "content": "When is the archive open?"}], "collection": "handbook"},
            ),
            "later": Example(
                summary="Work that may wait, found again by its metadata",
                body={"prompt": "Summarise: …", "priority": "batch", "expires_in": 3600, "metadata": {"order": "17"}},
            ),
        },
        replies={
            200: Reply(description="It ended within the wait.", model=responses.Job, headers=("Idempotent-Replay",)),
            202: Reply(description="It was taken, and will end.", model=responses.Job, headers=ACCEPTED),
        },
        refusals=(404, 409, 429),
    ),
)
