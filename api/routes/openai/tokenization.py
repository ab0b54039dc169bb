"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``: a model's tokenizer, at the root, where lm-eval looks for it, and under ``/v1``."""

from flask import Blueprint, request

from api.openai.job_responses import complete_response
from api.openai.parsing import parse_openai_body, plan_context
from api.openapi.operation import OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe, in_query
from api.responses import RouteResponse
from api.schemas import responses
from shared.openai.requests import DetokenizeRequest, TokenizeRequest
from shared.openai.tokenization import plan_detokenize, plan_tokenize, plan_tokenizer_info

blueprint = Blueprint("openai_tokenization", __name__)

REFUSALS = (404, 409, 429, 499, 504)


@blueprint.post("/tokenize")
@blueprint.post("/v1/tokenize")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Turn a text or a conversation into tokens",
        request_model=TokenizeRequest,
        examples={"text": Example(summary="A text", body={"prompt": "The archive is open.", "return_token_strs": True})},
        replies={200: Reply(description="The tokens.", model=responses.Tokens, headers=OPENAI_HEADERS)},
        refusals=REFUSALS,
    )
)
def tokenize() -> RouteResponse:
    body = parse_openai_body(TokenizeRequest)
    return complete_response(plan_tokenize(body, plan_context()))


@blueprint.post("/detokenize")
@blueprint.post("/v1/detokenize")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Turn tokens into text",
        request_model=DetokenizeRequest,
        examples={"tokens": Example(summary="Some tokens", body={"tokens": [72, 105]})},
        replies={200: Reply(description="The text.", model=responses.TokenText, headers=OPENAI_HEADERS)},
        refusals=REFUSALS,
    )
)
def detokenize() -> RouteResponse:
    body = parse_openai_body(DetokenizeRequest)
    return complete_response(plan_detokenize(body, plan_context()))


@blueprint.get("/tokenizer_info")
@blueprint.get("/v1/tokenizer_info")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Describe a model's tokenizer",
        parameters=(in_query("model", {"type": "string"}, "Name of a model; the default model if it is missing."),),
        replies={200: Reply(description="The tokenizer.", model=responses.TokenizerInfo, headers=OPENAI_HEADERS)},
        refusals=REFUSALS,
    )
)
def show_tokenizer() -> RouteResponse:
    return complete_response(plan_tokenizer_info(request.args.get("model"), plan_context()))
