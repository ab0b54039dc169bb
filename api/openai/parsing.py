"""The validated body of a call of ``/v1``, and what its plan needs besides."""

from collections.abc import Iterable
from typing import TypeVar

from flask import g, request
from pydantic_core import from_json

from api.caller import caller
from api.owned_jobs import job_rights, require_job
from api.request_parsing import read_body
from api.services import owner, services
from shared.errors import Forbidden, MalformedBody
from shared.jobs.submission import MAX_END_USER
from shared.openai.conversations import Conversation
from shared.openai.parsing import parse_request
from shared.openai.request_plan import PlanContext
from shared.openai.requests import OpenAIRequest

# Open WebUI names its user so, if ENABLE_FORWARD_USER_INFO_HEADERS is set.
END_USER_HEADER = "X-OpenWebUI-User-Id"

Model = TypeVar("Model", bound=OpenAIRequest)


def parse_openai_body(model: type[Model]) -> Model:
    """The validated JSON body; the fields that it has beyond the known ones are named in a header of the response.

    Raises MalformedBody, InvalidValue, or BodyTooLarge (as HTTP error).
    """
    if not request.is_json:
        raise MalformedBody("The body must be JSON, sent with Content-Type: application/json.")
    try:
        body = from_json(read_body(), allow_inf_nan=False)
    except ValueError as error:
        raise MalformedBody(f"The body is not valid JSON: {error}") from None
    parsed, ignored = parse_request(model, body)
    record_ignored_params(ignored)
    return parsed


def record_ignored_params(names: Iterable[str]) -> None:
    """List ignored parts of the request in the response header ``x-ignored-params``."""
    _ignored_params().extend(names)


def plan_context() -> PlanContext:
    """The context of the current request. What its plan ignores is named in the header ``x-ignored-params`` of the response."""
    return PlanContext(
        models=services().models,
        owner=owner(),
        end_user=request.headers.get(END_USER_HEADER, "")[:MAX_END_USER],
        ignored_params=_ignored_params(),
        responses=services().responses,
        conversations=services().conversations,
        keeps_responses=True,
        documents=services().documents,
        passages=services().settings.retrieve_top_k,
        rewrites_questions=services().settings.rewrite_questions,
        rights=caller().rights,
        require_job=require_job,
        require_conversation=require_conversation,
    )


def require_conversation(conversation: Conversation) -> None:
    """Raise Forbidden unless the caller's key may use a conversation of its owner.

    Items do not say which models and collections they come from. A key that may not see all jobs therefore uses its own conversations only.
    """
    if conversation.key != caller().key_id and job_rights() is not None:
        raise Forbidden(
            f"Conversation {conversation.id} was created with another API key, and yours may not see everything of your account.",
            code="permission_denied",
            param="conversation",
        )


def _ignored_params() -> list[str]:
    ignored: list[str] = g.setdefault("ignored_params", [])
    return ignored
