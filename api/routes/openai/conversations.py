"""``/v1/conversations``: items that responses read and add to."""

from flask import Blueprint, jsonify, request

from api.openai.conversations import create_conversation, find_conversation, list_items, read_items
from api.openai.pages import PAGE_OF_ITEMS, page_response
from api.openai.parsing import parse_openai_body
from api.openapi.operation import OPENAI_HEADERS, OPENAI_TAG, Example, Operation, Reply, describe, in_path
from api.request_parsing import query_choice, query_integer
from api.responses import RouteResponse
from api.schemas import responses
from api.services import owner, services
from shared.openai.conversations import new_conversation_id
from shared.openai.requests import ConversationChanges, ConversationItemsRequest, ConversationRequest

blueprint = Blueprint("openai_conversations", __name__)

CONVERSATION = in_path("conversation", "Id of a conversation.", "conv_01m84stetzyr7esggznw5rdjds")
ITEM = in_path("item", "Id of an item.", "msg_01m84stetzyr7esggznw5rdjds_i0")
MESSAGE = {"type": "message", "role": "user", "content": "I am Ada."}
ONE = Reply(description="The conversation.", model=responses.Conversation, headers=OPENAI_HEADERS)


@blueprint.post("/v1/conversations")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Create a conversation",
        request_model=ConversationRequest,
        examples={"message": Example(summary="With a message", body={"items": [MESSAGE], "metadata": {"topic": "demo"}})},
        replies={200: ONE},
        refusals=(409,),
    )
)
def create() -> RouteResponse:
    return jsonify(create_conversation(parse_openai_body(ConversationRequest)).as_json())


@blueprint.get("/v1/conversations/<conversation>")
@describe(Operation(tag=OPENAI_TAG, summary="Get a conversation", parameters=(CONVERSATION,), replies={200: ONE}))
def show(conversation: str) -> RouteResponse:
    return jsonify(find_conversation(conversation).as_json())


@blueprint.post("/v1/conversations/<conversation>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Replace the metadata of a conversation",
        parameters=(CONVERSATION,),
        request_model=ConversationChanges,
        examples={"topic": Example(summary="A topic", body={"metadata": {"topic": "demo"}})},
        replies={200: ONE},
    )
)
def change(conversation: str) -> RouteResponse:
    found, body = find_conversation(conversation), parse_openai_body(ConversationChanges)
    return jsonify(services().conversations.change(found, owner(), body.metadata or {}).as_json())


@blueprint.delete("/v1/conversations/<conversation>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Delete a conversation with its items",
        description="Its responses stay.",
        parameters=(CONVERSATION,),
        replies={200: Reply(description="The conversation is deleted.", model=responses.ConversationDeletion)},
    )
)
def delete(conversation: str) -> RouteResponse:
    services().conversations.delete(find_conversation(conversation), owner())
    return jsonify({"id": conversation, "object": "conversation.deleted", "deleted": True})


@blueprint.post("/v1/conversations/<conversation>/items")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Add items to the end of a conversation",
        parameters=(CONVERSATION,),
        request_model=ConversationItemsRequest,
        examples={"message": Example(summary="A message", body={"items": [MESSAGE]})},
        replies={200: Reply(description="The items.", model=responses.OpenAIItemList, headers=OPENAI_HEADERS)},
        refusals=(409,),
    )
)
def create_items(conversation: str) -> RouteResponse:
    found = find_conversation(conversation)
    items = read_items(parse_openai_body(ConversationItemsRequest).items, new_conversation_id())
    services().conversations.add_items(found, owner(), items)
    return page_response(items, has_more=False)


@blueprint.get("/v1/conversations/<conversation>/items")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="List the items of a conversation",
        parameters=(CONVERSATION, *PAGE_OF_ITEMS),
        replies={200: Reply(description="One page.", model=responses.OpenAIItemList, headers=OPENAI_HEADERS)},
    )
)
def list_conversation_items(conversation: str) -> RouteResponse:
    limit, newest_first = query_integer("limit", 20, 1, 100), query_choice("order", ("asc", "desc")) != "asc"
    found, after = find_conversation(conversation), request.args.get("after", "")
    items, has_more = list_items(found, after=after, limit=limit, newest_first=newest_first)
    return page_response(items, has_more=has_more)


@blueprint.get("/v1/conversations/<conversation>/items/<item>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Get an item of a conversation",
        parameters=(CONVERSATION, ITEM),
        replies={200: Reply(description="The item.", model=responses.OpenAIItem, headers=OPENAI_HEADERS)},
    )
)
def show_item(conversation: str, item: str) -> RouteResponse:
    return jsonify(services().conversations.find_item(find_conversation(conversation), item))


@blueprint.delete("/v1/conversations/<conversation>/items/<item>")
@describe(
    Operation(
        tag=OPENAI_TAG,
        summary="Delete an item of a conversation",
        parameters=(CONVERSATION, ITEM),
        replies={200: ONE},
    )
)
def delete_item(conversation: str, item: str) -> RouteResponse:
    found = find_conversation(conversation)
    services().conversations.delete_item(found, owner(), item)
    return jsonify(found.as_json())
