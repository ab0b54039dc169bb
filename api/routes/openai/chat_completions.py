"""``POST /v1/chat/completions``."""

from functools import partial

from flask import Blueprint

from api.openai.chunks import ChatChunks
from api.openai.job_responses import complete_response, streaming_response
from api.openai.parsing import parse_openai_body, plan_context
from api.openapi.operation import IDEMPOTENCY_KEY, OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from shared.openai.chat import plan_chat
from shared.openai.requests import ChatCompletionRequest

blueprint = Blueprint("openai_chat_completions", __name__)

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@blueprint.post("/v1/chat/completions")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Answer a conversation",
        description=(
            "Waits for the answer, or streams it (`stream: true`) as server-sent events whose data is a `chat.completion.chunk`, up "
            "to `[DONE]`. Closing the connection cancels the jobs."
        ),
        parameters=(IDEMPOTENCY_KEY,),
        request_model=ChatCompletionRequest,
        examples={
            "messages": Example(summary="A conversation", body={"messages": MESSAGES}),
            "options": Example(
                summary="Sampling options, and two answers",
                body={"messages": MESSAGES, "max_completion_tokens": 40, "temperature": 0.2, "seed": 7, "n": 2, "stop": "\n\n"},
            ),
        },
        replies={200: Reply(description="The answers.", model=responses.ChatCompletion, headers=OPENAI_HEADERS, may_stream=True)},
        refusals=(404, 409, 429, 499, 504),
    )
)
def create_chat_completion() -> RouteResponse:
    body = parse_openai_body(ChatCompletionRequest)
    plan = plan_chat(body, plan_context())
    if body.stream:
        return streaming_response(plan, partial(ChatChunks, copies=body.n or 1, includes_usage=body.includes_usage))
    return complete_response(plan)
