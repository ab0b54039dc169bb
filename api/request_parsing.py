"""Validated values from a request: body, form, query and headers. Every error names the field, its value and the limit.

The models in ``schemas.requests`` define what a body may contain. Nothing is written before everything is validated.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar
from urllib.request import parse_http_list

from flask import request
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from api.schemas.requests.documents import DocumentMetadata
from api.schemas.requests.webhooks import JobWebhook
from api.services import services
from shared.documents.filters import Scalar
from shared.documents.passwords import MAX_PASSWORD_LENGTH
from shared.errors import InvalidRequest, InvalidValue, MalformedBody
from shared.ids import is_id
from shared.jobs.start_time import StartTime, check_start_time
from shared.jobs.submission import MAX_CONCURRENCY_KEY, MAX_CONCURRENCY_LIMIT

MAX_SHOWN = 80
MAX_NAME = 120
# Files of one upload, and parts of its form: the files and the other fields.
MAX_FILES = 1000
MAX_FORM_PARTS = MAX_FILES + 20
MAX_KEY_LENGTH = 255
FORM_FIELDS = ("file", "webhook", "metadata", "password", "replace", "not_before", "concurrency_key", "concurrency_limit")

Model = TypeVar("Model", bound=BaseModel)


class IdempotencyKey(NamedTuple):
    """A key and the fingerprint of its request; both are empty if the client sent no key."""

    key: str
    fingerprint: str


def parse_body(model: type[Model]) -> Model:
    """The validated JSON body. Raises MalformedBody, InvalidValue, or BodyTooLarge (as HTTP error)."""
    # A page of another site can send any other content type without a preflight request; JSON makes the browser ask first.
    if not request.is_json:
        raise MalformedBody("The body must be JSON, sent with Content-Type: application/json.")
    try:
        return model.model_validate_json(read_body())
    except ValidationError as error:
        raise _request_error(error, fields=model.model_fields) from None


def parse_optional_body(model: type[Model]) -> Model:
    """The validated JSON body, or the model's defaults if the request has none."""
    # Not Content-Length: a body that is sent in chunks has none.
    return parse_body(model) if read_body() else model()


def form_files(max_files: int) -> list[FileStorage]:
    """The files in the field ``file`` of a form. Raises InvalidRequest or InvalidValue."""
    _limit_upload()
    files = request.files.getlist("file")
    if not files:
        raise InvalidRequest(
            "file: send at least one file as multipart/form-data in the field `file`", code="file_missing", param="file"
        )
    if len(files) > max_files:
        raise InvalidValue(f"file: at most {max_files} files per request, not {len(files)}", param="file")
    return files


def check_form_fields() -> None:
    """Check that an upload has no unknown field, and no field in its address. Raises InvalidValue.

    A field that is ignored may replace the document that it was to protect.
    """
    for name in FORM_FIELDS:
        if name in request.args:
            raise InvalidValue(f"{name}: send it as a field of the form, not in the address", param=name)
    _limit_upload()
    for name in (*request.form, *request.files):
        if name not in FORM_FIELDS:
            shown = name[:MAX_SHOWN]
            raise InvalidValue(f"{shown}: is not a field of this form, which are {', '.join(FORM_FIELDS)}", param=shown)


def form_webhook() -> JobWebhook | None:
    """The field ``webhook`` of a form, which is JSON. Raises InvalidValue."""
    text = _form_field("webhook")
    if not text:
        return None
    try:
        return JobWebhook.model_validate_json(text)
    except ValidationError as invalid:
        error = _request_error(invalid)
        if isinstance(error, MalformedBody) or not error.param:
            raise InvalidValue('webhook: must be JSON such as {"url": "https://…"}', param="webhook") from None
        raise InvalidValue(f"webhook.{error.message}", param=f"webhook.{error.param}") from None


def form_password() -> str:
    """The field ``password`` of a form, or "". Raises InvalidValue, whose message does not repeat it."""
    return check_password(_form_field("password"))


def check_password(password: str) -> str:
    """The password, if it is short enough. Raises InvalidValue."""
    if len(password) > MAX_PASSWORD_LENGTH:
        raise InvalidValue(f"password: at most {MAX_PASSWORD_LENGTH} characters, not {len(password)}", param="password")
    return password


def form_replace() -> bool:
    """The field ``replace`` of a form: whether files may replace documents with their names. Raises InvalidValue."""
    text = _form_field("replace").lower()
    if text not in ("", "true", "false"):
        raise InvalidValue(f"replace: must be true or false, not {text[:MAX_SHOWN]!r}", param="replace")
    return text != "false"


def form_start_time() -> StartTime | None:
    """The field ``not_before`` of a form: when its jobs may start. Raises InvalidValue."""
    text = _form_field("not_before")
    if not text:
        return None
    try:
        value: StartTime = float(text)
    except ValueError:
        value = text
    try:
        check_start_time(value)
    except ValueError as error:
        raise InvalidValue(f"not_before: {error}", param="not_before") from None
    return value


def form_concurrency() -> tuple[str, int]:
    """The fields ``concurrency_key``, "" if there is none, and ``concurrency_limit`` of a form. Raises InvalidValue."""
    key, limit = _form_field("concurrency_key"), _form_field("concurrency_limit")
    if len(key) > MAX_CONCURRENCY_KEY:
        raise InvalidValue(f"concurrency_key: at most {MAX_CONCURRENCY_KEY} characters, not {len(key)}", param="concurrency_key")
    if not limit:
        return key, 1
    if not key:
        raise InvalidValue("concurrency_limit: needs a concurrency_key", param="concurrency_limit")
    if not re.fullmatch("[0-9]{1,5}", limit, re.ASCII) or not 1 <= int(limit) <= MAX_CONCURRENCY_LIMIT:
        raise InvalidValue(
            f"concurrency_limit: must be an integer from 1 to {MAX_CONCURRENCY_LIMIT}, not {limit[:MAX_SHOWN]!r}",
            param="concurrency_limit",
        )
    return key, int(limit)


def form_metadata() -> dict[str, Scalar]:
    """The field ``metadata`` of a form, a JSON object of strings, numbers and booleans. Raises InvalidValue."""
    text = _form_field("metadata")
    if not text:
        return {}
    try:
        return DocumentMetadata.model_validate_json(text).root
    except ValidationError as invalid:
        error = _request_error(invalid)
        param = f"metadata.{error.param}" if error.param else "metadata"
        raise InvalidValue(
            f"{param}: must be a JSON object of at most 32 fields, each a string of at most 512 characters, a number, true or false",
            param=param,
        ) from None


def query_integer(name: str, default: int, minimum: int, maximum: int) -> int:
    """An integer of the query string. Raises InvalidValue."""
    text = request.args.get(name)
    if text is None:
        return default
    return parse_integer(text, name, minimum, maximum)


def parse_integer(text: str, name: str, minimum: int, maximum: int) -> int:
    """The integer that the parameter or header ``name`` contains. Raises InvalidValue."""
    if not re.fullmatch(r"-?[0-9]{1,13}", text) or not minimum <= int(text) <= maximum:
        raise InvalidValue(f"{name}: must be an integer from {minimum} to {maximum}, not {text[:MAX_SHOWN]!r}", param=name)
    return int(text)


def query_cursor(prefix: str, noun: str) -> str | None:
    """The parameter ``after`` of a list of objects whose ids have this prefix, or None. Raises InvalidValue."""
    after = request.args.get("after")
    if after is not None and not is_id(prefix, after):
        raise InvalidValue(f"after: must be the id of a {noun}, not {after[:MAX_SHOWN]!r}", param="after")
    return after


def query_choice(name: str, choices: tuple[str, ...]) -> str | None:
    """A value of the query string that must be one of ``choices``, or None. Raises InvalidValue."""
    text = request.args.get(name)
    if text is not None and text not in choices:
        raise InvalidValue(f"{name}: must be one of {', '.join(choices)}, not {text[:MAX_SHOWN]!r}", param=name)
    return text


def query_boolean(name: str) -> bool:
    """Whether a value of the query string is ``true``; it may be ``false`` or absent. Raises InvalidValue."""
    return query_choice(name, ("true", "false")) == "true"


def query_text(name: str) -> str | None:
    """A text of the query string, or None. Raises InvalidValue if it is longer than any name."""
    text = request.args.get(name)
    if text is not None and not 0 < len(text) <= MAX_NAME:
        raise InvalidValue(f"{name}: must have 1 to {MAX_NAME} characters, not {len(text)}", param=name)
    return text


def query_choices(name: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a parameter that may be repeated, each one of ``choices``. Raises InvalidValue."""
    texts = tuple(dict.fromkeys(request.args.getlist(name)))
    for text in texts:
        if text not in choices:
            raise InvalidValue(f"{name}: must be one of {', '.join(choices)}, not {text[:MAX_SHOWN]!r}", param=name)
    return texts


def query_time_ms(name: str) -> int | None:
    """A time in Unix seconds, maybe with decimals, as milliseconds, or None. Raises InvalidValue."""
    text = request.args.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text):
        raise InvalidValue(f"{name}: must be a time in Unix seconds, not {text[:MAX_SHOWN]!r}", param=name)
    return round(1000 * float(text))


def requested_timeout(default: float) -> float:
    """How many seconds the client waits: ``?wait=N`` or ``Prefer: wait=N``, 0 for ``respond-async`` alone, else ``default``.

    Raises InvalidValue above the longest wait that the settings allow.
    """
    maximum = services().settings.max_wait_seconds
    if "wait" in request.args:
        return query_integer("wait", 0, 0, maximum)
    preferences = _preferences()
    if "wait" in preferences:
        return parse_integer(preferences["wait"], "Prefer", 0, maximum)
    return 0 if "respond-async" in preferences else default


def read_idempotency_key(content: Any) -> IdempotencyKey:
    """The key of this request, with the fingerprint of ``content``. Raises InvalidValue.

    ``content`` is the validated body, so two spellings of the same request have the same fingerprint.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return IdempotencyKey("", "")
    if len(key) > MAX_KEY_LENGTH or not key.isprintable():
        raise InvalidValue(f"Idempotency-Key: must be 1 to {MAX_KEY_LENGTH} printable characters", param="Idempotency-Key")
    text = json.dumps([request.method, request.path, content], sort_keys=True, ensure_ascii=False, default=str)
    return IdempotencyKey(key, hashlib.sha256(text.encode()).hexdigest())


def _preferences() -> dict[str, str]:
    """The values of the ``Prefer`` headers by name (RFC 7240, section 2), without parameters; the first value of a name counts."""
    preferences: dict[str, str] = {}
    for preference in parse_http_list(",".join(request.headers.getlist("Prefer"))):
        name, _, value = preference.partition(";")[0].partition("=")
        preferences.setdefault(name.strip().lower(), value.strip().removeprefix('"').removesuffix('"'))
    return preferences


def read_body() -> bytes:
    """The body. Raises BodyTooLarge (as HTTP error): Flask checks only Content-Length, and cuts a body in chunks at the limit."""
    request.max_content_length = limit = services().settings.max_body_bytes
    body = request.get_data()
    if len(body) == limit and request.content_length is None and request.environ["wsgi.input"].read(1):
        raise RequestEntityTooLarge
    return body


def _form_field(name: str) -> str:
    _limit_upload()
    return request.form.get(name, "")


def _limit_upload() -> None:
    # Reading one field of a form reads the whole form, so the limits must be set first.
    request.max_content_length = services().settings.max_upload_bytes
    request.max_form_parts = MAX_FORM_PARTS


def _request_error(error: ValidationError, *, fields: Iterable[str] = ()) -> InvalidValue | MalformedBody:
    """The error of the first invalid field. ``fields`` are those of the body, to suggest the one that was meant."""
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return MalformedBody(f"The body is not valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    field = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    if not field:
        return InvalidValue(reason)
    if first["type"] in ("missing", "extra_forbidden"):
        similar = get_close_matches(field, fields, n=1)
        suggestion = f"; did you mean {similar[0]}?" if similar else ""
        reason = "is required" if first["type"] == "missing" else f"is not a field of this call{suggestion}"
        return InvalidValue(f"{field}: {reason}", param=field)
    value = repr(first["input"])
    shown = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
    return InvalidValue(f"{field}: {reason}, not {shown}", param=field)
