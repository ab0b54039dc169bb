"""The guide's chat calls, over sessions and jobs: they wait for the answer unless the client prefers not to."""

from typing import Any

from flask import Blueprint, Response, jsonify

from api.request_parsing import body, wait_seconds
from api.responses import Answer
from api.routes.generate import served_model, submit_generation
from api.schemas.requests import ChatMessage, ChatStart, Sampling
from api.services import owner, services
from api.submission import answer
from shared.errors import EnginehouseError, InvalidValue
from shared.ids import SESSION, new_id
from shared.jobs.models import Job, Status

blueprint = Blueprint("chat", __name__)


class TurnFailed(EnginehouseError):
    """The job of a chat turn did not complete; its own error says why."""

    status = 502
    code = "job_failed"
    type = "job_error"


@blueprint.post("/chat/start")
def start() -> Answer:
    """Begin a session, or go on with one; with a ``message`` the answer comes along."""
    wanted = body(ChatStart)
    session = wanted.sessionId or new_id(SESSION)
    if wanted.message:
        # A refused message must not leave a session behind.
        served_model(wanted.model)
    services().sessions.open(session, owner())
    if not wanted.message:
        return _history(session)
    return _turn(wanted, session, wanted.message)


@blueprint.post("/chat/message")
def message() -> Answer:
    """Say something in a session. Messages of one session are answered one after the other, in the order they came."""
    wanted = body(ChatMessage)
    return _turn(wanted, wanted.sessionId, wanted.message)


@blueprint.get("/chat/history/<path:session>")
def history(session: str) -> Response:
    """What has been said, oldest first."""
    services().sessions.check(session, owner())
    return _history(session)


@blueprint.delete("/chat/session/<path:session>")
def delete(session: str) -> Response:
    """Forget a session."""
    services().sessions.delete(session, owner())
    return jsonify({"message": "session deleted", "sessionId": session})


def _turn(wanted: Sampling, session: str, text: str) -> Answer:
    wait = wait_seconds()
    if wait is None:
        wait = services().settings.chat_wait_seconds
    job = submit_generation(wanted, {"message": text}, wait, characters=len(text), session=session)
    if not (wait and job.status.final):
        return answer(job, 0)
    if job.status is not Status.COMPLETED:
        raise _failure(job)
    return _history(session, job)


def _history(session: str, job: Job | None = None) -> Response:
    said: dict[str, Any] = {"sessionId": session, "messages": services().sessions.messages(session)}
    if job is not None and job.result is not None:
        said |= {"job": job.id, "citations": job.result.get("citations", []), "usage": job.result["usage"]}
    return jsonify(said)


def _failure(job: Job) -> EnginehouseError:
    error = job.error or {"code": job.status.value, "message": f"job {job.id} is {job.status.value}", "param": None}
    kind = InvalidValue if error.get("type") == "invalid_request_error" else TurnFailed
    return kind(str(error["message"]), code=str(error["code"]), param=error.get("param"), details={"job": job.id})
