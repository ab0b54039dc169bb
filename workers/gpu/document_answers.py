"""Answers from documents: the steps around a generation whose job begins with a search.

The model that answers a follow-up question first rewrites it to stand alone: the job starts in the queue of its model, moves to the io
pool, and comes back with passages. If no passage is relevant enough, the answer says so without the model.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.errors import InvalidValue, NanLogits, OutOfMemory, PromptTooLong
from shared.jobs.queue_names import IO_QUEUE
from workers.gpu.file_search import opening_delta, search_result
from workers.gpu.prompt_encoding import turn_messages
from workers.runtime.attempt import Attempt, AttemptStopped, Handover, Result

logger = logging.getLogger(__name__)

NOT_IN_THE_DOCUMENTS = "The documents do not contain an answer to this question."

# The fixed part comes first, so that all rewritings share its cached pages.
INSTRUCTION = (
    "Rewrite the last question so that it can be understood without the conversation: replace pronouns and references by what they "
    "stand for. Keep its language. Do not answer it. Reply with the question alone."
)
MAX_MESSAGES = 6
MAX_MESSAGE_CHARACTERS = 600
MAX_QUESTION_CHARACTERS = 500
MAX_TOKENS = 96
# Shorter words say little about the subject.
_WORD = re.compile(r"\w{4,}")
# Question marks of Latin, Chinese and Arabic texts.
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")


def needs_rewriting(attempt: Attempt) -> bool:
    """Whether this attempt must rewrite the question of its job before the search."""
    return bool(attempt.spec.get("rewrite")) and "question" not in attempt.context and "passages" not in attempt.context


def rewrite_question(
    attempt: Attempt, messages: Sequence[Mapping[str, Any]], generate: Callable[[Attempt], Result], options: Mapping[str, Any]
) -> Handover:
    """Rewrite the last of ``messages`` and hand the job over to the search. ``options`` are fields of the model for a short answer.

    If the model does not return a question, the message itself is searched for. Raises what ``generate`` raises for a dead engine or a
    stopped attempt.
    """
    message = str(messages[-1]["content"])
    question = None
    if any(earlier["role"] == "assistant" for earlier in messages):
        attempt.report_progress("rewriting", 0, 0, "questions")
        question = _parse_question(_ask_model(attempt, messages, generate, options), message, messages)
    context = {"question": question or message, "rewritten": question is not None}
    return Handover(queue=IO_QUEUE, context=context)


def refuses_to_answer(attempt: Attempt) -> bool:
    """Whether the search of the job found no passage that is relevant enough."""
    return bool((attempt.context.get("retrieval") or {}).get("refused"))


def answer_not_found(attempt: Attempt) -> Result:
    """The answer of a job whose documents contain none."""
    if attempt.job.has_deltas:
        attempt.void_deltas()
    attempt.send_delta({**opening_delta(attempt.context, None), "text": NOT_IN_THE_DOCUMENTS})
    value: dict[str, Any] = {
        "text": NOT_IN_THE_DOCUMENTS,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        **search_result(attempt.context, None, NOT_IN_THE_DOCUMENTS),
    }
    return Result(value=value, service=0, messages=turn_messages(attempt.job, attempt.spec, value))


def _ask_model(
    attempt: Attempt, messages: Sequence[Mapping[str, Any]], generate: Callable[[Attempt], Result], options: Mapping[str, Any]
) -> str:
    """The model's answer to the instruction, which clients do not see; empty if it has none."""
    spec = {
        "messages": [{"role": "user", "content": _prompt(messages)}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        **options,
    }
    job = replace(attempt.job, spec=spec, context={}, session="", output="", has_deltas=False)
    # Its deltas are not published.
    hidden = Attempt(job, publish=lambda events: None)
    # Its tokens are used by the job all the same.
    hidden.usage = attempt.usage
    attempt.on_stop(lambda: hidden.request_stop("cancel"))
    try:
        return str(generate(hidden).value["text"])
    except AttemptStopped:
        attempt.raise_if_stopped()
        raise
    except (InvalidValue, NanLogits, OutOfMemory, PromptTooLong) as error:
        logger.warning("job %s searches for its message, as the question was not rewritten: %s", attempt.job.id, error.code)
        return ""


def _prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    recent = [message for message in messages[:-1] if message["role"] in ("user", "assistant")][-MAX_MESSAGES:]
    names = {"user": "User", "assistant": "Assistant"}
    lines = [f"{names[message['role']]}: {_shorten(str(message['content']))}" for message in recent]
    conversation = "\n".join(lines)
    return f"{INSTRUCTION}\n\nConversation:\n{conversation}\n\nLast question: {_shorten(str(messages[-1]['content']))}"


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MAX_MESSAGE_CHARACTERS else f"{flat[:MAX_MESSAGE_CHARACTERS]}…"


def _parse_question(text: str, message: str, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The question in a model's answer; None if the answer is something else, such as an answer to the question."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = line.strip("\"'“”«» ")
    if not line or len(line) > MAX_QUESTION_CHARACTERS or INSTRUCTION[:40] in line:
        return None
    if message.rstrip().endswith(_QUESTION_MARKS) and not line.endswith(_QUESTION_MARKS):
        return None
    known = {word for earlier in messages for word in _WORD.findall(str(earlier["content"]).lower())}
    return line if known.intersection(_WORD.findall(line.lower())) else None
