"""Turns of chats: submitted as jobs, and their JSON."""

import time
from typing import Any

from api.generation import submit_generation
from api.request_parsing import requested_timeout
from api.schemas.requests.chat import TurnOptions
from api.services import owner, services
from api.submission import SubmittedJob
from shared.errors import EnginehouseError, InvalidValue
from shared.jobs.models import Job, Status
from shared.jobs.serialization import seconds
from shared.sessions.models import Session, Turn
from shared.sessions.store import RESTORE_SECONDS

TAG = "Chats"
WAITS = "Waits up to `ENGINEHOUSE_CHAT_WAIT_SECONDS` for the answer unless the client asks for a different wait."


class TurnFailed(EnginehouseError):
    """The job of a chat turn did not complete; its own error says why."""

    status = 502
    code = "job_failed"
    type = "job_error"


def submit_turn(options: TurnOptions, session: str, text: str, *, parent: str = "") -> tuple[SubmittedJob, bool]:
    """Submit a message to a session; also return whether the client has waited for the answer, and it is there.

    ``parent`` becomes ``Submission.turn_parent``. Raises TurnFailed if the job ended without an answer while the client waited.
    """
    prompt = {"message": text, "system": options.system} if options.system else {"message": text}
    turn: dict[str, Any] = {"request": options.repeated_options()}
    timeout = requested_timeout(services().settings.chat_wait_seconds)
    characters = len(text) + len(options.system or "")
    submitted = submit_generation(options, prompt, timeout, characters=characters, session=session, turn=turn, turn_parent=parent)
    has_ended = bool(timeout) and submitted.job.status.final
    if has_ended and submitted.job.status is not Status.COMPLETED:
        raise _turn_error(submitted.job)
    return submitted, has_ended


def session_json(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "title": session.title or "New chat",
        "created_at": seconds(session.created_at),
        "updated_at": seconds(session.updated_at),
        "turns": session.turns,
    }


def turn_json(turn: Turn) -> dict[str, Any]:
    """A turn as its owner sees it. Only one that has ended has an answer."""
    answer, request, collection = turn.answer, turn.request, turn.request.get("collection")
    created_at = turn.times.get("created_at", 0)
    if not collection and request.get("use_rag"):
        collection = {"name": services().settings.default_collection}
    return {
        "id": turn.id,
        "parent": turn.parent or None,
        "siblings": list(turn.siblings),
        "status": turn.status,
        "message": turn.message,
        "answer": answer.get("content", "") if Status(turn.status).final else None,
        "reasoning": answer.get("reasoning", ""),
        "error": turn.error,
        "model": turn.model,
        "collection": collection["name"] if collection else None,
        "system": request.get("system"),
        "citations": answer.get("citations", []),
        "grounded": answer.get("grounded"),
        "retrieval": answer.get("retrieval"),
        "usage": answer.get("usage"),
        "finish_reason": answer.get("finish_reason"),
        "created_at": seconds(created_at),
        "timings": {
            name: (turn.times[field] - created_at) / 1000 if field in turn.times else None
            for name, field in (("queued", "started_at"), ("first_token", "first_token_at"), ("total", "ended_at"))
        },
    }


def restorable_until() -> float:
    """Until when a session that is deleted now can be restored."""
    return round(time.time() + RESTORE_SECONDS, 3)


def read_turn(session: str, turn: str) -> dict[str, Any]:
    """The JSON of one turn. Raises NotFound."""
    return turn_json(services().sessions.turns(session, owner(), last=turn)[1][-1])


def _turn_error(job: Job) -> EnginehouseError:
    error = job.error or {"code": job.status.value, "message": f"Job {job.id} ended as {job.status.value}.", "param": None}
    error_class = InvalidValue if error.get("type") == "invalid_request_error" else TurnFailed
    return error_class(str(error["message"]), code=str(error["code"]), param=error.get("param"), details={"job": job.id})
