"""Descriptions of routes for ``/openapi.json``: a decorator, and the values that descriptions consist of."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flask import Flask
from pydantic import BaseModel

from api.scopes import scopes_of

Schema = Mapping[str, Any]
View = TypeVar("View", bound=Callable[..., Any])

ERROR_REPLIES = {
    400: "The request is malformed, or it was sent to another host name.",
    401: "The request has no API key, or a key that this server does not know.",
    403: "The request comes from a page of another origin, or the key does not allow it.",
    404: "The object does not exist, or it belongs to another owner.",
    408: "The body did not arrive in time.",
    409: "The object is in a state that does not allow this call.",
    413: "The body exceeds the size limit.",
    415: "The body is compressed; send it as it is.",
    416: "The file has no such range of bytes.",
    422: "A value is out of range; `param` names the field.",
    429: "A limit is reached; try again later.",
    500: "Internal server error. The server log has the details.",
    499: "The client closed its connection before the answer.",
    502: "The job that this call waited for did not complete.",
    503: "The server cannot do this now; `Retry-After` says when to try again.",
    504: "The answer took longer than this server allows, or no worker started it in time.",
}
# Calls in the forms of OpenAI's API.
OPENAI_TAG = "OpenAI"
ERRORS_OF_EVERY_CALL = (400, 403, 500, 503)
RETRYABLE = (429, 503)

HEADERS: Mapping[str, Schema] = {
    "Location": {"description": "The path of the job.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait before the next request.", "schema": {"type": "string"}},
    "Idempotent-Replay": {
        "description": "`true` if an earlier request with this Idempotency-Key created the job.",
        "schema": {"type": "string"},
    },
    "x-job-id": {"description": "The jobs behind the answers, separated by commas.", "schema": {"type": "string"}},
    "x-ignored-params": {"description": "Fields of the request that were ignored.", "schema": {"type": "string"}},
}

# Headers of a 202 response.
JOB_HEADERS = ("Location", "Retry-After")
OPENAI_HEADERS = ("x-job-id", "x-ignored-params")
REPLAYABLE_JOB_HEADERS = (*JOB_HEADERS, "Idempotent-Replay")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A value in the path, the query string or a header. ``example`` is a value that works; a test sends it."""

    name: str
    location: str
    schema: Schema
    description: str
    example: Any = None
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A successful response. Without a model it is not JSON but ``media_type``; "" means that it has no body.

    For a stream, ``model`` is one event and ``event_data`` the JSON in it. ``may_stream`` says that the request can ask for a stream of
    server-sent events instead, ``may_be_csv`` for CSV.
    """

    description: str
    model: type[BaseModel] | None = None
    many: bool = False
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    example: Any = None
    event_data: type[BaseModel] | None = None
    may_stream: bool = False
    may_be_csv: bool = False


@dataclass(frozen=True, kw_only=True)
class Example:
    """A request body that works. For an upload, ``body`` is the text of the field ``file``."""

    summary: str
    body: Any


@dataclass(frozen=True, kw_only=True)
class Operation:
    """The description of one call. ``list_operations`` fills in ``method``, ``path`` and ``scopes`` from the route.

    ``refusals`` lists the error statuses beyond those that every call has. ``files`` is the largest number of files that an
    upload may have, and ``form_fields`` its other fields; those with ``examples`` are required. ``json_instead`` is a JSON body that
    may be sent instead of the files. ``open`` calls need no API key.
    """

    tag: str
    summary: str
    replies: Mapping[int, Reply]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    request_model: type[BaseModel] | None = None
    body_required: bool = True
    files: int = 0
    json_instead: type[BaseModel] | None = None
    form_fields: Mapping[str, Schema] = field(default_factory=dict)
    examples: Mapping[str, Example] = field(default_factory=dict)
    refusals: tuple[int, ...] = ()
    open: bool = False
    scopes: tuple[str, ...] = ()
    method: str = ""
    path: str = ""

    @property
    def form_values(self) -> dict[str, Any]:
        """The fields that a form must have beside its file, with values that work."""
        return {name: schema["examples"][0] for name, schema in self.form_fields.items() if "examples" in schema}

    @property
    def call(self) -> str:
        """Method and path, such as ``GET /jobs/{job}``."""
        return f"{self.method.upper()} {self.path}"

    @property
    def error_statuses(self) -> list[int]:
        """Every error status that this call can return."""
        statuses = {*ERRORS_OF_EVERY_CALL, *self.refusals}
        if not self.open:
            statuses |= {401, 429}
        if self.request_model is not None or self.files:
            statuses |= {408, 413, 415, 422}
        if any(parameter.location == "path" for parameter in self.parameters):
            statuses.add(404)
        if any(parameter.location != "path" for parameter in self.parameters):
            statuses.add(422)
        if self.tag == OPENAI_TAG:
            # OpenAI's clients know a bad value by 400.
            statuses.discard(422)
        return sorted(statuses - set(self.replies))


def describe(operation: Operation) -> Callable[[View], View]:
    """Attach the description to a view function. Use it below the decorator that registers the route."""

    def attach(view: View) -> View:
        vars(view)["operation"] = operation
        return view

    return attach


def operation_of(app: Flask, endpoint: str) -> Operation | None:
    """The description of the view function behind an endpoint."""
    operation: Operation | None = vars(app.view_functions[endpoint]).get("operation")
    return operation


def list_operations(app: Flask) -> list[Operation]:
    """The descriptions of all routes, in the order in which they were registered. Raises TypeError if one is missing,
    or has no scope."""
    operations = []
    for rule in app.url_map.iter_rules():
        operation = operation_of(app, rule.endpoint)
        if operation is None:
            raise TypeError(f"route {rule.rule} has no description: decorate {rule.endpoint} with @describe")
        scopes = () if operation.open else scopes_of(rule.endpoint)
        path = re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            operations.append(replace(operation, method=method.lower(), path=path, scopes=scopes))
    return operations


def in_path(name: str, description: str, example: str) -> Parameter:
    schema = {"type": "string", "minLength": 1}
    return Parameter(name=name, location="path", schema=schema, description=description, example=example, required=True)


def in_query(name: str, schema: Schema, description: str, example: Any = None) -> Parameter:
    return Parameter(name=name, location="query", schema=schema, description=description, example=example)


def in_header(name: str, schema: Schema, description: str, example: Any = None) -> Parameter:
    return Parameter(name=name, location="header", schema=schema, description=description, example=example)


JOB = in_path("job", "Id of a job.", "job_01m84stetzyr7esggznw5rdjds")
COLLECTION = in_path("collection", "Name of a collection.", "handbook")
DOCUMENT = in_path("document", "Id of a document.", "doc_01m84svpew31wcd91z2271xy1f")
SESSION = in_path("session", "Id of a chat session.", "visit-7")
GPU = in_path("gpu", "Number of a gpu worker, or its name if several hosts have a worker with this number.", "0")
WEBHOOK = in_path("webhook", "Id of a registered webhook.", "whk_01m84sw1c2f0t7d5h3zq8m4n6p")
DELIVERY = in_path("delivery", "Id of a delivery.", "dlv_01m84sw1c8a3c5e7f9b1d2e4f6")

LIMIT = in_query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "Maximum number of entries.", 10)
PERMANENT = in_query(
    "permanent", {"type": "boolean", "default": False}, "Delete it at once, so that it cannot be restored.", True
)
AFTER = in_query("after", {"type": "string"}, "The `next` of the previous page.")
PREFER = in_header(
    "Prefer",
    {"type": "string"},
    "RFC 7240: `wait=N` waits up to N seconds for the job to end, at most `ENGINEHOUSE_MAX_WAIT_SECONDS`; `respond-async` alone does not "
    "wait.",
    "wait=20",
)
WAIT = in_query("wait", {"type": "integer", "minimum": 0}, "The same as `Prefer: wait=N`.")
IDEMPOTENCY_KEY = in_header(
    "Idempotency-Key",
    {"type": "string", "maxLength": 255},
    "Any text. Repeating the same request with the same key creates no second job. Kept for 24 hours, and no longer than the job.",
)

# The response to a conditional request for a file.
UNCHANGED = Reply(description="The browser's copy is current.", media_type="")
NOT_MODIFIED = Reply(description="The same as the response whose `ETag` was sent as `If-None-Match`.", media_type="")
