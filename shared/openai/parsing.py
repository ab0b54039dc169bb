"""Validated bodies of requests of ``/v1``. Errors name fields as OpenAI does: ``messages[2].content``."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from shared.errors import InvalidValue, MalformedBody
from shared.openai.requests import OpenAIRequest

MAX_SHOWN = 80

Model = TypeVar("Model", bound=OpenAIRequest)


def parse_request(model: type[Model], body: Any) -> tuple[Model, list[str]]:
    """The validated request, and the names of fields that are ignored. Raises MalformedBody and InvalidValue."""
    if not isinstance(body, Mapping):
        raise MalformedBody("The body must be a JSON object.")
    try:
        return model.from_body(body)
    except ValidationError as error:
        raise _value_error(error) from None


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
