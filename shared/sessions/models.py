"""Chat sessions and their turns, read-only: only the scripts in ``lua/`` and those of jobs change them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Session:
    """A chat session. Times are Unix milliseconds; ``current`` is the last turn of the branch that is shown, or "" without turns."""

    id: str
    title: str
    created_at: int
    updated_at: int
    turns: int
    current: str = ""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question and its answer.

    ``id`` is that of the job. ``parent`` is the turn before it, empty for a first one, and ``siblings`` are all turns after the same
    parent, itself included, oldest first. ``request`` has the options of the client. ``answer`` is the message of the model, with
    ``content`` and whatever its worker has added; of a turn that did not complete, what was written until then.
    """

    id: str
    parent: str
    siblings: Sequence[str]
    status: str
    message: str
    request: Mapping[str, Any]
    model: str
    answer: Mapping[str, Any]
    error: Mapping[str, Any] | None
    times: Mapping[str, int]


def parse_session(fields: Mapping[str, str], *, turns: int, updated_at: str) -> Session:
    """Parse the fields of a session."""
    return Session(
        id=fields["id"],
        title=fields.get("title", ""),
        created_at=int(fields["created_at"]),
        updated_at=int(updated_at or fields["created_at"]),
        turns=turns,
        current=fields.get("current", ""),
    )


def parse_turn(row: Sequence[Any]) -> Turn:
    """Parse a row of ``read_turns``."""
    id, parent, question, times, status, answer, error, siblings = row
    asked = json.loads(question)
    return Turn(
        id=id,
        parent=parent,
        siblings=siblings,
        status=status,
        message=message_of(asked),
        request=asked.get("request", {}),
        model=asked.get("model", ""),
        answer=json.loads(answer) if answer else {},
        error=json.loads(error) if error else None,
        times=json.loads(times),
    )


def message_of(question: Mapping[str, Any]) -> str:
    """The text of a question. Sessions of earlier versions have messages with a role and a ``content`` here."""
    return str(question.get("message", question.get("content", "")))
