"""From a request to checked values: its body, form, query and headers. Every refusal names the field, the value and the limit.

What a body may hold is in ``bodies``. Nothing is written before all is checked.
"""

import re
from typing import TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from api.schemas.requests import DocumentMetadata, JobWebhook
from api.services import services
from shared.documents.filters import Scalar
from shared.documents.passwords import LONGEST as LONGEST_PASSWORD
from shared.errors import InvalidValue, MalformedBody

SHOWN_VALUE = 80

B = TypeVar("B", bound=BaseModel)


def body(model: type[B]) -> B:
    """The checked JSON body. Raises MalformedBody, InvalidValue or BodyTooLarge (as HTTP error)."""
    # A page of another site can send any other content type without asking; JSON makes the browser ask first.
    if not request.is_json:
        raise MalformedBody("the body must be JSON, sent with Content-Type: application/json")
    request.max_content_length = services().settings.max_body_bytes
    try:
        return model.model_validate_json(request.get_data())
    except ValidationError as error:
        raise _refusal(error) from None


def form_webhook() -> JobWebhook | None:
    """The field ``webhook`` of a form, which is JSON. Raises InvalidValue."""
    text = request.form.get("webhook")
    if not text:
        return None
    try:
        return JobWebhook.model_validate_json(text)
    except ValidationError as error:
        refusal = _refusal(error)
        if isinstance(refusal, MalformedBody) or not refusal.param:
            raise InvalidValue('webhook: must be JSON such as {"url": "https://…"}', param="webhook") from None
        raise InvalidValue(f"webhook.{refusal.message}", param=f"webhook.{refusal.param}") from None


def form_password() -> str:
    """The field ``password`` of a form, or "". Raises InvalidValue, which does not repeat it."""
    return check_password(request.form.get("password", ""))


def check_password(password: str) -> str:
    if len(password) > LONGEST_PASSWORD:
        raise InvalidValue(f"password: at most {LONGEST_PASSWORD} characters, not {len(password)}", param="password")
    return password


def form_metadata() -> dict[str, Scalar]:
    """The field ``metadata`` of a form, which is a JSON object of texts, numbers and truths. Raises InvalidValue."""
    text = request.form.get("metadata")
    if not text:
        return {}
    try:
        return DocumentMetadata.model_validate_json(text).root
    except ValidationError as error:
        refusal = _refusal(error)
        where = f"metadata.{refusal.param}" if refusal.param else "metadata"
        raise InvalidValue(
            f"{where}: must be a JSON object of at most 32 fields, each a text of at most 512 characters, a number, true or false",
            param=where,
        ) from None


def _refusal(error: ValidationError) -> InvalidValue | MalformedBody:
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON that can be read: {first['msg'].removeprefix('Invalid JSON: ')}")
    field = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    if not field:
        return InvalidValue(reason)
    if first["type"] in ("missing", "extra_forbidden"):
        reason = "must be given" if first["type"] == "missing" else "is not a field of this call"
        return InvalidValue(f"{field}: {reason}", param=field)
    value = repr(first["input"])
    shown = value if len(value) <= SHOWN_VALUE else value[:SHOWN_VALUE] + "…"
    return InvalidValue(f"{field}: {reason}, not {shown}", param=field)


def query_integer(name: str, default: int, low: int, high: int) -> int:
    """An integer of the query string. Raises InvalidValue."""
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d{1,12}", text) or not low <= int(text) <= high:
        raise InvalidValue(f"{name}: must be an integer from {low} to {high}, not {text[:SHOWN_VALUE]!r}", param=name)
    return int(text)


def wait_seconds() -> float | None:
    """How long the client wants to wait: ``?wait=N`` or ``Prefer: wait=N``; 0 for ``respond-async``; None when it does not say.

    Raises InvalidValue past the longest wait that is allowed.
    """
    most = services().settings.max_wait_seconds
    if "wait" in request.args:
        return query_integer("wait", 0, 0, most)
    for preference in request.headers.get("Prefer", "").lower().split(","):
        name, _, value = preference.strip().partition("=")
        if name == "respond-async":
            return 0
        if name == "wait":
            if not value.strip().isdigit() or int(value) > most:
                raise InvalidValue(f"Prefer: wait must be 0 to {most} seconds, not {value[:SHOWN_VALUE]!r}", param="Prefer")
            return int(value)
    return None
