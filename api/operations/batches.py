"""The calls by which one batch counts what is uploaded in many requests."""

from api.operations.operation import ACCEPTED, IDEMPOTENCY_KEY, JOB, Example, Operation, Reply
from api.schemas import responses
from api.schemas.requests import NewBatch

OPERATIONS = (
    Operation(
        call="POST /batches",
        tag="Documents",
        summary="Open a batch, for uploads that are to be counted together",
        description=(
            "It is a job like others: it can be looked at, followed and cancelled. Uploads with `?batch=` join it until it is sealed, "
            "and it ends with the last of their jobs. One that is left open waits for an hour (`ENGINEHOUSE_SEAL_SECONDS`) once all "
            "that it has have ended, and is sealed then."
        ),
        parameters=(IDEMPOTENCY_KEY,),
        body=NewBatch,
        body_required=False,
        examples={
            "plain": Example(summary="Nothing to say of it", body={}),
            "named": Example(summary="A name of its own", body={"metadata": {"from": "scanner-2"}}),
        },
        replies={
            201: Reply(description="It is open.", model=responses.Job, headers=("Location", "Idempotent-Replay")),
        },
        refusals=(409,),
    ),
    Operation(
        call="POST /jobs/{job}/seal",
        tag="Documents",
        summary="Let no more jobs join a batch",
        description="Sealing it again does no harm.",
        parameters=(JOB,),
        replies={
            200: Reply(description="All its jobs have ended, and so has it.", model=responses.Job),
            202: Reply(description="It ends with the last of its jobs.", model=responses.Job, headers=ACCEPTED),
        },
        refusals=(409,),
    ),
)
