"""The chat calls of the chat_gp_me tutorial, on sessions and jobs."""

from typing import Any

from flask import Blueprint, Response, jsonify

from api.chat_turns import TAG, WAITS, submit_turn
from api.openapi.operation import (
    IDEMPOTENCY_KEY,
    PREFER,
    REPLAYABLE_JOB_HEADERS,
    SESSION,
    WAIT,
    Example,
    Operation,
    Reply,
    describe,
)
from api.request_parsing import parse_body
from api.responses import RouteResponse, accepted_response
from api.schemas import responses
from api.schemas.requests.chat import ChatMessageRequest, ChatStartRequest, TurnOptions
from api.services import owner, services
from shared.ids import SESSION as SESSION_PREFIX
from shared.ids import new_id
from shared.jobs.models import Job

blueprint = Blueprint("tutorial_chat", __name__)

TURN_REPLIES = {
    200: Reply(description="All messages, with the answer.", model=responses.Chat),
    202: Reply(description="No answer yet; this job generates it.", model=responses.Job, headers=REPLAYABLE_JOB_HEADERS),
}


@blueprint.post("/chat/start")
@describe(
    Operation(
        tag=TAG,
        summary="Start or continue a chat",
        description=f"With a `message`, the response includes the answer. {WAITS}",
        parameters=(PREFER, WAIT, IDEMPOTENCY_KEY),
        request_model=ChatStartRequest,
        examples={
            "message": Example(summary="A first message", body={"message": "Hello, how are you?"}),
            "named": Example(summary="A session id of your choice", body={"sessionId": "visit-7"}),
        },
        replies=TURN_REPLIES,
        refusals=(404, 409, 429, 502),
    )
)
def start_chat() -> RouteResponse:
    body = parse_body(ChatStartRequest)
    session = body.sessionId or new_id(SESSION_PREFIX)
    if body.message:
        # A message for an unknown model must not leave a session behind.
        services().models.find_generation_model(body.model)
    services().sessions.open(session, owner())
    if not body.message:
        return _history_response(session)
    return _submit_turn(body, session, body.message)


@blueprint.post("/chat/message")
@describe(
    Operation(
        tag=TAG,
        summary="Send a message to a chat",
        description=f"Messages of one chat are answered one after another, in the order in which they arrived. {WAITS}",
        parameters=(PREFER, WAIT, IDEMPOTENCY_KEY),
        request_model=ChatMessageRequest,
        examples={"message": Example(summary="A message", body={"sessionId": "visit-7", "message": "And you?"})},
        replies=TURN_REPLIES,
        refusals=(404, 409, 429, 502),
    )
)
def send_message() -> RouteResponse:
    body = parse_body(ChatMessageRequest)
    return _submit_turn(body, body.sessionId, body.message)


@blueprint.get("/chat/history/<path:session>")
@describe(
    Operation(
        tag=TAG,
        summary="Get the messages of a chat",
        parameters=(SESSION,),
        replies={200: Reply(description="The messages, oldest first.", model=responses.Chat)},
    )
)
def show_history(session: str) -> RouteResponse:
    return _history_response(session)


@blueprint.delete("/chat/session/<path:session>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete a chat",
        parameters=(SESSION,),
        replies={200: Reply(description="The chat is deleted.", model=responses.ChatDeletion)},
    )
)
def delete_chat(session: str) -> RouteResponse:
    services().sessions.delete_session(session, owner())
    return jsonify({"message": "session deleted", "sessionId": session})


def _submit_turn(options: TurnOptions, session: str, text: str) -> RouteResponse:
    (job, replayed), has_answer = submit_turn(options, session, text)
    if not has_answer:
        return accepted_response(job, replayed=replayed)
    # A repeated request gets the job of the first one, whose session may be another: one without an id gets a new one.
    return _history_response(job.session, job)


def _history_response(session: str, job: Job | None = None) -> Response:
    chat: dict[str, Any] = {"sessionId": session, "messages": services().sessions.messages(session, owner())}
    if job is not None and job.result is not None:
        chat |= {"job": job.id, "citations": job.result.get("citations", []), "usage": job.result["usage"]}
    return jsonify(chat)
