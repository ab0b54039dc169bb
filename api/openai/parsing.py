"""The validated body of a call of ``/v1``. Errors name fields as OpenAI does: ``messages[2].content``."""

from collections.abc import Iterable
from typing import TypeVar

from flask import g, request
from pydantic import ValidationError
from pydantic_core import from_json

from api.request_parsing import MAX_SHOWN, read_body
from api.schemas.requests.openai import OpenAIRequest
from shared.errors import InvalidValue, MalformedBody

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
    if not isinstance(body, dict):
        raise MalformedBody("The body must be a JSON object.")
    try:
        parsed, ignored = model.from_body(body)
    except ValidationError as error:
        raise _value_error(error) from None
    record_ignored_params(ignored)
    return parsed


def record_ignored_params(names: Iterable[str]) -> None:
    """List ignored parts of the request in the response header ``x-ignored-params``."""
    g.setdefault("ignored_params", []).extend(names)


def path_of(location: Iterable[int | str]) -> str:
    """A path such as ``messages[2].content``. Names in parentheses are those of alternatives, which a request does not have."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("("):
            path += f".{part[:MAX_SHOWN]}" if path else part[:MAX_SHOWN]
    return path.removesuffix(".[key]")


def _value_error(error: ValidationError) -> InvalidValue:
    first = error.errors(include_url=False, include_context=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    path = path_of(first["loc"])
    if not path:
        # A check of several fields; its message starts with the one to change.
        return InvalidValue(reason, param=reason.partition(":")[0])
    reason = reason[0].lower() + reason[1:]
    if first["type"] == "missing":
        return InvalidValue(f"{path}: is required", param=path, code="missing_required_parameter")
    value = repr(first["input"])
    shown = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
    return InvalidValue(f"{path}: {reason}, not {shown}", param=path)
