"""``POST /v1/completions``."""

from functools import partial

from flask import Blueprint

from api.openai.answers import stream_answers, whole_answers
from api.openai.chunks import CompletionChunks
from api.openai.completions import completion_response, completion_work
from api.openai.parsing import parse_openai_body
from api.openapi.operation import IDEMPOTENCY_KEY, OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from api.schemas.requests.openai import CompletionRequest

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
    work = completion_work(body)
    if body.stream:
        return stream_answers(work, partial(CompletionChunks, copies=work.copies, includes_usage=body.includes_usage))
    return whole_answers(work, completion_response)
