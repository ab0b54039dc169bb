"""What ``/openapi.json`` says of one call. Knows no call by name; the modules beside this one describe them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

Schema = Mapping[str, Any]

REFUSALS = {
    400: "The request cannot be understood, or was meant for another host.",
    401: "No API key was shown, or not one of this server.",
    403: "A page of another origin called, or the key does not allow it.",
    404: "There is none, or it is somebody else's.",
    409: "It is in a state that does not allow this.",
    413: "The body is larger than its limit.",
    422: "A value is out of its range; `param` names it.",
    429: "A limit is reached; later there is room again.",
    500: "A fault of the server; its log tells more.",
    502: "The job that this call waited for did not complete.",
    503: "The server cannot do it now; `Retry-After` says when to try again.",
}
EVERYWHERE = (400, 403, 500, 503)
RETRYABLE = (429, 503)

HEADERS: Mapping[str, Schema] = {
    "Location": {"description": "Where the job is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until it is worth asking again.", "schema": {"type": "string"}},
    "Idempotent-Replay": {
        "description": "`true` when an earlier request with this Idempotency-Key made the job.",
        "schema": {"type": "string"},
    },
}

# Of an answer 202, when the request may have been sent before.
ACCEPTED = ("Location", "Retry-After", "Idempotent-Replay")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A value in the path, the query string or a header. ``example`` is one that works; a test sends it."""

    name: str
    where: str
    schema: Schema
    description: str
    example: Any = None
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer that is no refusal. Without a model it has no JSON: ``media_type`` tells what it has, "" being nothing.

    Of a stream the model is that of one event, and ``also`` what its data is.
    """

    description: str
    model: type[BaseModel] | None = None
    many: bool = False
    headers: tuple[str, ...] = ()
    media_type: str = "application/json"
    example: Any = None
    also: type[BaseModel] | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """A body that works. Of a multipart body, ``body`` is the text of the field ``file``."""

    summary: str
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call: ``"GET /jobs/{job}"``, what it takes and how it can answer.

    ``refusals`` are the statuses of errors beyond those that every call has. A call without a ``body`` model takes files when
    ``files`` says how many at most.
    """

    call: str
    tag: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    body_required: bool = True
    files: int = 0
    examples: Mapping[str, Example] = field(default_factory=dict)
    replies: Mapping[int, Reply]
    refusals: tuple[int, ...] = ()
    open: bool = False

    @property
    def method(self) -> str:
        return self.call.split()[0].lower()

    @property
    def path(self) -> str:
        return self.call.split()[1]

    @property
    def statuses(self) -> list[int]:
        """Of refusals, all of them."""
        known = {*EVERYWHERE, *self.refusals}
        if not self.open:
            known.add(401)
        if self.body is not None or self.files:
            known |= {413, 422}
        if any(parameter.where == "path" for parameter in self.parameters):
            known.add(404)
        if any(parameter.where != "path" for parameter in self.parameters):
            known.add(422)
        return sorted(known - set(self.replies))


def in_path(name: str, description: str, example: str) -> Parameter:
    schema = {"type": "string", "minLength": 1}
    return Parameter(name=name, where="path", schema=schema, description=description, example=example, required=True)


def in_query(name: str, schema: Schema, description: str, example: Any = None) -> Parameter:
    return Parameter(name=name, where="query", schema=schema, description=description, example=example)


def in_header(name: str, schema: Schema, description: str, example: Any = None) -> Parameter:
    return Parameter(name=name, where="header", schema=schema, description=description, example=example)


JOB = in_path("job", "The id of a job.", "job_01m84stetzyr7esggznw5rdjds")
COLLECTION = in_path("collection", "The name of a collection.", "handbook")
DOCUMENT = in_path("document", "The id of a document.", "doc_01m84svpew31wcd91z2271xy1f")
SESSION = in_path("session", "The id of a chat.", "visit-7")

LIMIT = in_query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, "How many at most.", 10)
PREFER = in_header(
    "Prefer",
    {"type": "string"},
    "`wait=N` waits up to N seconds for the end, as long as `ENGINEHOUSE_MAX_WAIT_SECONDS` allows; `respond-async` does not wait.",
    "wait=20",
)
WAIT = in_query("wait", {"type": "integer", "minimum": 0}, "The same as `Prefer: wait=N`.")
IDEMPOTENCY_KEY = in_header(
    "Idempotency-Key",
    {"type": "string", "maxLength": 255},
    "Any text of yours. The same request with the same key again makes no second job; kept 24 hours.",
)
