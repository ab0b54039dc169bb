"""``POST /chat`` and ``/chat/sessions``: messages, the list of chats, and the branches of a chat."""

from typing import Any

from flask import Blueprint, jsonify, request

from api.chat_turns import TAG, WAITS, read_turn, restorable_until, session_json, submit_turn, turn_json
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
    in_path,
    in_query,
)
from api.request_parsing import parse_body, parse_optional_body, query_integer, query_text
from api.responses import RouteResponse, accepted_response
from api.schemas import responses
from api.schemas.requests.chat import ChatRequest, RegenerateRequest, SessionChanges, TurnOptions
from api.services import owner, services
from shared.ids import SESSION as SESSION_PREFIX
from shared.ids import new_id
from shared.jobs.submission import FIRST_TURN

blueprint = Blueprint("chat", __name__)

TURN = in_path("turn", "Id of a turn, which is also the id of its job.", "job_01m84stetzyr7esggznw5rdjds")
TURN_REPLIES = {
    200: Reply(description="The turn with its answer.", model=responses.AnsweredTurn),
    202: Reply(description="No answer yet; this job generates it.", model=responses.Job, headers=REPLAYABLE_JOB_HEADERS),
}


@blueprint.post("/chat")
@describe(
    Operation(
        tag=TAG,
        summary="Send a message to a new chat or to an existing one",
        description=(
            f"The message follows the current turn, or the turn `parent`: an edited message is a branch, with the `parent` of the one "
            f"that it replaces. Without `parent`, a `session` that does not exist is created. {WAITS}"
        ),
        parameters=(PREFER, WAIT, IDEMPOTENCY_KEY),
        request_model=ChatRequest,
        examples={
            "first": Example(summary="A first message", body={"message": "Hello, how are you?"}),
            "edited": Example(
                summary="Another first message of a chat", body={"session": "visit-8", "message": "Good morning!", "parent": None}
            ),
        },
        replies=TURN_REPLIES,
        refusals=(404, 409, 429, 502),
    )
)
def send_chat_message() -> RouteResponse:
    body = parse_body(ChatRequest)
    session = body.session or new_id(SESSION_PREFIX)
    if body.parent is None:
        # A message for an unknown model must not leave a session behind.
        services().models.find_generation_model(body.model)
        services().sessions.open(session, owner())
    parent = body.parent or (FIRST_TURN if "parent" in body.model_fields_set else "")
    return _turn_response(body, session, body.message, parent)


@blueprint.get("/chat/sessions")
@describe(
    Operation(
        tag=TAG,
        summary="List your chats, the one with the latest turn first",
        description=(
            "With `q`, only those whose title, questions or answers have this text. A search reads 500 chats or 16 MiB at a time, so a "
            "page may be short or empty although `next_cursor` is set."
        ),
        parameters=(
            in_query("q", {"type": "string", "minLength": 1, "maxLength": 200}, "Text to search for.", "hello"),
            in_query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Maximum number of chats.", 10),
            in_query("cursor", {"type": "string"}, "The `next_cursor` of the previous page."),
        ),
        replies={200: Reply(description="A page of chats.", model=responses.SessionList)},
    )
)
def list_chats() -> RouteResponse:
    page = services().session_list.page(
        owner(), limit=query_integer("limit", 20, 1, 100), cursor=request.args.get("cursor"), text=query_text("q") or ""
    )
    return jsonify({"data": [session_json(session) for session in page.sessions], "next_cursor": page.next_cursor})


@blueprint.get("/chat/sessions/<path:session>/turns")
@describe(
    Operation(
        tag=TAG,
        summary="Get the turns of a chat",
        description=(
            "The branch that is shown, or the one that leads to `last`. Turns that failed, were stopped or still run are part of it; the "
            "model does not see them."
        ),
        parameters=(
            SESSION,
            in_query("last", {"type": "string"}, "The turn at which the branch ends; by default the current one."),
        ),
        replies={200: Reply(description="The chat and its turns, oldest first.", model=responses.SessionTurns)},
    )
)
def list_turns(session: str) -> RouteResponse:
    found, turns = services().sessions.turns(session, owner(), last=query_text("last") or "")
    return jsonify({"session": session_json(found), "current": found.current or None, "data": list(map(turn_json, turns))})


@blueprint.post("/chat/sessions/<path:session>/turns/<turn>/regenerate")
@describe(
    Operation(
        tag=TAG,
        summary="Answer a message again",
        description=(
            f"Makes a sibling of the turn: the same message after the same turn, with the options of the first answer except its `seed`, "
            f"and with those in the body. {WAITS}"
        ),
        parameters=(SESSION, TURN, PREFER, WAIT, IDEMPOTENCY_KEY),
        request_model=RegenerateRequest,
        body_required=False,
        examples={"warmer": Example(summary="With another temperature", body={"temperature": 1.2})},
        replies=TURN_REPLIES,
        refusals=(404, 409, 429, 502),
    )
)
def regenerate_turn(session: str, turn: str) -> RouteResponse:
    parent, asked = services().sessions.question(session, turn, owner())
    body = parse_optional_body(RegenerateRequest)
    earlier: dict[str, Any] = {"model": asked.get("model"), **asked.get("request", {})}
    # The same seed would give the same answer.
    earlier.pop("seed", None)
    changed = {name: getattr(body, name) for name in body.model_fields_set}
    options = TurnOptions.model_validate(
        {**{name: value for name, value in earlier.items() if value not in (None, "")}, **changed}
    )
    return _turn_response(options, session, asked["message"], parent or FIRST_TURN)


@blueprint.patch("/chat/sessions/<path:session>")
@describe(
    Operation(
        tag=TAG,
        summary="Rename a chat, or show another branch",
        parameters=(SESSION,),
        request_model=SessionChanges,
        examples={"title": Example(summary="A title", body={"title": "Holiday plans"})},
        replies={200: Reply(description="The chat and the turns of its branch.", model=responses.SessionTurns)},
    )
)
def change_chat(session: str) -> RouteResponse:
    # A session that does not exist is reported before a bad body.
    services().sessions.change_session(session, owner())
    body = parse_body(SessionChanges)
    services().sessions.change_session(session, owner(), title=body.title or "", current=body.current or "")
    return list_turns(session)


@blueprint.delete("/chat/sessions/<path:session>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete a chat, which can be restored for a minute",
        description="After that minute, its texts are gone, with the jobs of its turns.",
        parameters=(SESSION,),
        replies={200: Reply(description="The chat is deleted.", model=responses.SessionDeletion)},
    )
)
def delete_chat_session(session: str) -> RouteResponse:
    services().sessions.delete_session(session, owner())
    return jsonify({"id": session, "deleted": True, "restorable_until": restorable_until()})


@blueprint.post("/chat/sessions/<path:session>/restore")
@describe(
    Operation(
        tag=TAG,
        summary="Restore a chat that was deleted within the last minute",
        parameters=(SESSION,),
        replies={200: Reply(description="The chat and the turns of its branch.", model=responses.SessionTurns)},
        refusals=(409,),
    )
)
def restore_chat_session(session: str) -> RouteResponse:
    services().sessions.restore_session(session, owner())
    return list_turns(session)


def _turn_response(options: TurnOptions, session: str, message: str, parent: str) -> RouteResponse:
    (job, replayed), has_answer = submit_turn(options, session, message, parent=parent)
    if not has_answer:
        return accepted_response(job, replayed=replayed)
    # A repeated request gets the job of the first one, whose session may be another: one without an id gets a new one.
    return jsonify({"session": job.session, "turn": read_turn(job.session, job.id)})
