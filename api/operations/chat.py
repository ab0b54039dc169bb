"""The guide's chat calls."""

from api.operations.operation import ACCEPTED, IDEMPOTENCY_KEY, PREFER, SESSION, WAIT, Example, Operation, Reply
from api.schemas import responses
from api.schemas.requests import ChatMessage, ChatStart

TURN = {
    200: Reply(description="The whole history, with the answer.", model=responses.Chat),
    202: Reply(description="No answer yet; this job will have it.", model=responses.Job, headers=ACCEPTED),
}
WAITS = "Waits for the answer (`ENGINEHOUSE_CHAT_WAIT_SECONDS`) unless told otherwise."

OPERATIONS = (
    Operation(
        call="POST /chat/start",
        tag="Chats",
        summary="Begin a chat, or go on with one",
        description=f"With a `message` the answer comes along. {WAITS}",
        parameters=(PREFER, WAIT, IDEMPOTENCY_KEY),
        body=ChatStart,
        examples={
            "message": Example(summary="A first message", body={"message": "Hello, how are you?"}),
            "named": Example(summary="A session under a name of your own", body={"sessionId": "visit-7"}),
        },
        replies=TURN,
        refusals=(404, 409, 429, 502),
    ),
    Operation(
        call="POST /chat/message",
        tag="Chats",
        summary="Say something in a chat",
        description=f"Messages of one chat are answered one after the other, in the order they came. {WAITS}",
        parameters=(PREFER, WAIT, IDEMPOTENCY_KEY),
        body=ChatMessage,
        examples={"message": Example(summary="A message", body={"sessionId": "visit-7", "message": "And you?"})},
        replies=TURN,
        refusals=(404, 409, 429, 502),
    ),
    Operation(
        call="GET /chat/history/{session}",
        tag="Chats",
        summary="What has been said",
        parameters=(SESSION,),
        replies={200: Reply(description="Oldest first.", model=responses.Chat)},
    ),
    Operation(
        call="DELETE /chat/session/{session}",
        tag="Chats",
        summary="Forget a chat",
        parameters=(SESSION,),
        replies={200: Reply(description="Forgotten.", model=responses.ChatDeleted)},
    ),
)
