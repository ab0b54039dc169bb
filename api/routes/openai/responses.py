"""``/v1/responses``: answers that can be stored, continued, run in the background, and streamed from any event on."""

from flask import Blueprint, jsonify, request

from api.openai.job_responses import complete_response
from api.openai.pages import PAGE_OF_ITEMS
from api.openai.parsing import parse_openai_body, plan_context
from api.openai.response_streams import continue_stream
from api.openai.responses import cancel_response, create_response, delete_response, find_response, page_of_items
from api.openapi.operation import (
    IDEMPOTENCY_KEY,
    OPENAI_HEADERS,
    OPENAI_TAG,
    Example,
    Operation,
    Reply,
    describe,
    in_path,
    in_query,
)
from api.request_parsing import query_choice, query_integer
from api.responses import RouteResponse
from api.schemas import responses
from shared.openai.compaction_plan import plan_compaction
from shared.openai.requests import CompactRequest, InputTokensRequest, ResponseRequest
from shared.openai.response_plan import plan_input_tokens, plan_response

blueprint = Blueprint("openai_responses", __name__)

RESPONSE = in_path("response", "Id of a response.", "resp_01m84stetzyr7esggznw5rdjds")
MAX_SEQUENCE = 2**40


@blueprint.post("/v1/responses")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Create a response",
        description=(
            "Waits for the answer, streams it (`stream: true`), or returns at once (`background: true`). Closing the connection cancels "
            "a response that does not run in the background."
        ),
        parameters=(IDEMPOTENCY_KEY,),
        request_model=ResponseRequest,
        examples={
            "text": Example(summary="A text", body={"input": "What is the capital of France?"}),
            "background": Example(
                summary="In the background, within two hours",
                body={
                    "input": "Summarize the minutes.",
                    "background": True,
                    "background_options": {"completion_window": "2h"},
                },
            ),
        },
        replies={
            200: Reply(description="The response.", model=responses.OpenAIResponse, headers=OPENAI_HEADERS, may_stream=True)
        },
        refusals=(404, 409, 429, 499, 504),
    )
)
def create() -> RouteResponse:
    body = parse_openai_body(ResponseRequest)
    return create_response(body, plan_response(body, plan_context()))


@blueprint.post("/v1/responses/input_tokens")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Count the tokens of the prompt of a response",
        request_model=InputTokensRequest,
        examples={"text": Example(summary="A text", body={"input": "What is the capital of France?"})},
        replies={200: Reply(description="Their number.", model=responses.InputTokens, headers=OPENAI_HEADERS)},
        refusals=(404, 409, 429, 499, 504),
    )
)
def count_input_tokens() -> RouteResponse:
    return complete_response(plan_input_tokens(parse_openai_body(InputTokensRequest), plan_context()))


@blueprint.post("/v1/responses/compact")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Summarize a conversation, so that it can be continued with less",
        request_model=CompactRequest,
        examples={"text": Example(summary="A text", body={"input": "The archive opens at nine. Where is it?"})},
        replies={
            200: Reply(
                description="The messages of the user, and an item that stands for the conversation.",
                model=responses.Compaction,
                headers=OPENAI_HEADERS,
            )
        },
        refusals=(404, 409, 429, 499, 504),
    )
)
def compact() -> RouteResponse:
    return complete_response(plan_compaction(parse_openai_body(CompactRequest), plan_context()))


@blueprint.get("/v1/responses/<response>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get a response, or continue its stream",
        description="With `stream=true`, its events are sent as when it was created, after the one with the number `starting_after`.",
        parameters=(
            RESPONSE,
            in_query("stream", {"enum": ["true", "false"]}, "Send events."),
            in_query(
                "starting_after", {"type": "integer", "minimum": 0}, "The `sequence_number` of the last event that was received."
            ),
        ),
        replies={
            200: Reply(description="The response.", model=responses.OpenAIResponse, headers=OPENAI_HEADERS, may_stream=True)
        },
    )
)
def show(response: str) -> RouteResponse:
    wants_stream = query_choice("stream", ("true", "false")) == "true"
    after = query_integer("starting_after", -1, 0, MAX_SEQUENCE)
    stored = find_response(response)
    return continue_stream(stored, after) if wants_stream else jsonify(stored.body)


@blueprint.post("/v1/responses/<response>/cancel")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Cancel a response that runs in the background",
        description="A response that has ended stays as it is.",
        parameters=(RESPONSE,),
        replies={200: Reply(description="The response.", model=responses.OpenAIResponse, headers=OPENAI_HEADERS)},
    )
)
def cancel(response: str) -> RouteResponse:
    return jsonify(cancel_response(find_response(response)).body)


@blueprint.delete("/v1/responses/<response>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Delete a response with its job",
        description="One that has not ended is cancelled.",
        parameters=(RESPONSE,),
        replies={200: Reply(description="The response is deleted.", model=responses.Deletion)},
        refusals=(409,),
    )
)
def delete(response: str) -> RouteResponse:
    delete_response(find_response(response))
    return jsonify({"id": response, "object": "response", "deleted": True})


@blueprint.get("/v1/responses/<response>/input_items")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List the items before the answer, those of earlier responses included",
        parameters=(RESPONSE, *PAGE_OF_ITEMS),
        replies={200: Reply(description="One page.", model=responses.OpenAIItemList, headers=OPENAI_HEADERS)},
    )
)
def list_input_items(response: str) -> RouteResponse:
    limit = query_integer("limit", 20, 1, 100)
    newest_first = query_choice("order", ("asc", "desc")) != "asc"
    stored = find_response(response)
    return jsonify(page_of_items(stored.input, after=request.args.get("after"), limit=limit, newest_first=newest_first))
