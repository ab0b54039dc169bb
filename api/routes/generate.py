"""``POST /generate``: submit a generation job."""

from typing import Any

from flask import Blueprint

from api.generation import submit_generation
from api.openapi.operation import (
    IDEMPOTENCY_KEY,
    PREFER,
    REPLAYABLE_JOB_HEADERS,
    WAIT,
    Example,
    Operation,
    Reply,
    describe,
)
from api.request_parsing import parse_body, requested_timeout
from api.responses import RouteResponse, final_or_accepted
from api.schemas import responses
from api.schemas.requests.generation import GenerateRequest
from api.services import services
from shared.errors import InvalidValue
from shared.jobs.submission import NOT_STORED_RETENTION_SECONDS

blueprint = Blueprint("generate", __name__)


@blueprint.post("/generate")
@describe(
    Operation(
        tag="Generation",
        summary="Submit a generation",
        description="Returns a job immediately, to poll, wait for or follow. With `text` the call waits for the answer.",
        parameters=(PREFER, WAIT, IDEMPOTENCY_KEY),
        request_model=GenerateRequest,
        examples={
            "messages": Example(
                summary="A conversation, formatted by the model's chat template",
                body={"messages": [{"role": "user", "content": "What is the capital of France?"}]},
            ),
            "prompt": Example(
                summary="A raw prompt with sampling options",
                body={"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0.2, "seed": 7, "stop": ["\n\n"]},
            ),
            "collection": Example(
                summary="An answer from documents, with citations",
                body={"messages": [{"role": "user", "content": "When is the archive open?"}], "collection": "handbook"},
            ),
            "later": Example(
                summary="Low-priority work that expires, with metadata",
                body={"prompt": "Summarise: …", "priority": "batch", "expires_in": 3600, "metadata": {"order": "17"}},
            ),
        },
        replies={
            200: Reply(description="The job, which ended within the wait.", model=responses.Job, headers=("Idempotent-Replay",)),
            202: Reply(description="The job was accepted.", model=responses.Job, headers=REPLAYABLE_JOB_HEADERS),
        },
        refusals=(404, 409, 429),
    )
)
def generate() -> RouteResponse:
    """``text``, the field of the chat_gp_me tutorial, waits for the answer unless the client asks not to."""
    body = parse_body(GenerateRequest)
    timeout = requested_timeout(services().settings.chat_wait_seconds if body.text is not None else 0)
    prompt, characters = _prompt(body)
    submitted = submit_generation(body, prompt, timeout, characters=characters, keep_seconds=_keep_seconds(body))
    return final_or_accepted(submitted.job, waited=timeout > 0, replayed=submitted.replayed)


def _keep_seconds(body: GenerateRequest) -> int | None:
    """How long the job is kept; None for the server's default. Raises InvalidValue."""
    if not body.store:
        return NOT_STORED_RETENTION_SECONDS
    longest = services().settings.job_retention_seconds
    if body.keep_seconds is not None and body.keep_seconds > longest:
        raise InvalidValue(
            f"keep_seconds: this server keeps jobs for at most {longest} seconds, not {body.keep_seconds}", param="keep_seconds"
        )
    return body.keep_seconds


def _prompt(body: GenerateRequest) -> tuple[dict[str, Any], int]:
    """The input as the job's spec stores it, and its length in characters."""
    if body.text is not None:
        return {"messages": [{"role": "user", "content": body.text}]}, len(body.text)
    if body.messages is not None:
        messages = [message.model_dump() for message in body.messages]
        return {"messages": messages}, sum(len(message.content) for message in body.messages)
    return {"prompt": body.prompt}, len(body.prompt or "")
