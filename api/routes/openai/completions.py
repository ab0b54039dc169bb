"""``POST /v1/completions``."""

from functools import partial

from flask import Blueprint

from api.openai.chunks import CompletionChunks
from api.openai.job_responses import complete_response, streaming_response
from api.openai.parsing import parse_openai_body, plan_context
from api.openapi.operation import IDEMPOTENCY_KEY, OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from shared.openai.completions import plan_completion
from shared.openai.requests import CompletionRequest

blueprint = Blueprint("openai_completions", __name__)


@blueprint.post("/v1/completions")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Continue a text",
        description=(
            "The prompt is sent to the model unchanged. Waits for the answer, or streams it (`stream: true`) as server-sent events, up "
            "to `[DONE]`. Closing the connection cancels the jobs."
        ),
        parameters=(IDEMPOTENCY_KEY,),
        request_model=CompletionRequest,
        examples={
            "text": Example(summary="A text", body={"prompt": "Once upon a time", "max_tokens": 16}),
            "texts": Example(
                summary="Several texts", body={"prompt": ["One, two,", "Red, green,"], "max_tokens": 4, "temperature": 0}
            ),
        },
        replies={200: Reply(description="The answers.", model=responses.TextCompletion, headers=OPENAI_HEADERS, may_stream=True)},
        refusals=(404, 409, 429, 499, 504),
    )
)
def create_completion() -> RouteResponse:
    body = parse_openai_body(CompletionRequest)
    plan = plan_completion(body, plan_context())
    if body.stream:
        return streaming_response(plan, partial(CompletionChunks, copies=body.n or 1, includes_usage=body.includes_usage))
    return complete_response(plan)
