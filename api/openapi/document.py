"""The OpenAPI 3.1 document, built from the routes' descriptions, the request models and the response models."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Flask, current_app
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.openapi.operation import ERROR_REPLIES, HEADERS, RETRYABLE, Operation, Parameter, Reply, list_operations
from api.schemas import responses
from api.schemas.requests.documents import DocumentMetadata
from api.schemas.requests.webhooks import JobWebhook
from shared.documents.passwords import MAX_PASSWORD_LENGTH
from shared.jobs.start_time import DESCRIPTION as START_TIME
from shared.jobs.start_time import MAX_DELAY_SECONDS
from shared.jobs.submission import MAX_CONCURRENCY_KEY, MAX_CONCURRENCY_LIMIT

SCHEMAS = "#/components/schemas/"

WEBHOOK_FIELD = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"$ref": f"{SCHEMAS}{JobWebhook.__name__}"},
    "description": "Where to send the outcome of this upload.",
}

PASSWORD_FIELD = {
    "type": "string",
    "maxLength": MAX_PASSWORD_LENGTH,
    "description": "Opens encrypted files of this upload. The server forgets it once the files are read.",
}

METADATA_FIELD = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"$ref": f"{SCHEMAS}{DocumentMetadata.__name__}"},
    "description": "A JSON object with metadata of these files; searches can filter by it.",
}

REPLACE_FIELD = {
    "type": "boolean",
    "default": True,
    "description": "Whether a file may become the next version of a document with its name and other bytes.",
}

NOT_BEFORE_FIELD = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": MAX_DELAY_SECONDS},
        {"type": "string", "format": "date-time"},
    ],
    "description": f"When the jobs of this upload may start at the earliest: {START_TIME}.",
}

# Fields of an upload of documents.
DOCUMENT_FIELDS = {
    "webhook": WEBHOOK_FIELD,
    "metadata": METADATA_FIELD,
    "password": PASSWORD_FIELD,
    "replace": REPLACE_FIELD,
    "not_before": NOT_BEFORE_FIELD,
    "concurrency_key": {
        "type": "string",
        "maxLength": MAX_CONCURRENCY_KEY,
        "description": "Of your jobs with the same key, at most `concurrency_limit` run at once.",
    },
    "concurrency_limit": {"type": "integer", "minimum": 1, "maximum": MAX_CONCURRENCY_LIMIT, "default": 1},
}

STREAMED_EVENT = {
    "type": "object",
    "properties": {"data": {"type": "string", "description": "JSON of a chunk, or `[DONE]`."}},
    "required": ["data"],
}

ABOUT = """\
Runs jobs on your own language models. Every accepted job (202) reaches exactly one final status. Times are Unix seconds,
durations are seconds. An error says what happened, to which object, and what to do. While no API key exists, callers on the
server's own machine need none; once the first key exists, every call needs `Authorization: Bearer eh_…`, except those marked
open. A call whose `security` lists scopes needs a key with one of them."""


class ApiDescription:
    """The described calls of an application, and the document made from them when it is first needed."""

    def __init__(self, app: Flask) -> None:
        self.operations = list_operations(app)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        paths: dict[str, dict[str, Any]] = {}
        for operation in self.operations:
            paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Enginehouse",
                "version": _version(),
                "description": ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"key": []}],
            "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in self.operations)],
            "paths": paths,
            "components": {
                "schemas": _schemas(self.operations),
                "headers": dict(HEADERS),
                "responses": {str(status): _error_reply(status) for status in ERROR_REPLIES},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }


def api_document() -> dict[str, Any]:
    """The OpenAPI document of the current application."""
    description: ApiDescription = current_app.extensions["openapi"]
    return description.document


def _version() -> str:
    try:
        return version("enginehouse")
    except PackageNotFoundError:
        return "unreleased"  # runs from a checkout that is not installed


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": _operation_id(operation),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.request_model is not None or operation.files:
        described["requestBody"] = {"required": operation.body_required, "content": _content(operation)}
    described["responses"] = {str(status): _reply(reply) for status, reply in operation.replies.items()} | {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in operation.error_statuses
    }
    if operation.open or operation.scopes:
        # Each entry is an alternative.
        described["security"] = [{"key": [scope]} for scope in operation.scopes]
    return described


def _operation_id(operation: Operation) -> str:
    words = operation.path.replace("{", "").replace("}", "").replace(".", "/").split("/")
    return "_".join([operation.method, *(word for word in words if word)])


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.location,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    if parameter.required:
        described["required"] = True
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _content(operation: Operation) -> dict[str, Any]:
    if operation.request_model is not None:
        examples = {name: {"summary": example.summary, "value": example.body} for name, example in operation.examples.items()}
        return {"application/json": {"schema": _ref(operation.request_model), "examples": examples}}
    file: dict[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}
    if operation.files > 1:
        file = {"type": "array", "items": file, "minItems": 1, "maxItems": operation.files}
    examples = {
        name: {
            "summary": example.summary,
            "value": {"file": [example.body] if operation.files > 1 else example.body, **operation.form_values},
        }
        for name, example in operation.examples.items()
    }
    form = {
        "type": "object",
        "properties": {"file": file, **(operation.form_fields or DOCUMENT_FIELDS)},
        "required": ["file", *operation.form_values],
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form, "examples": examples}}
    if operation.json_instead is not None:
        content["application/json"] = {"schema": _ref(operation.json_instead)}
    return content


def _reply(reply: Reply) -> dict[str, Any]:
    described: dict[str, Any] = {"description": reply.description}
    if reply.headers:
        described["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in reply.headers}
    if reply.media_type:
        content: dict[str, Any] = {"schema": {}}
        if reply.model is not None:
            content["schema"] = {"type": "array", "items": _ref(reply.model)} if reply.many else _ref(reply.model)
        elif reply.media_type.startswith("text/"):
            content["schema"] = {"type": "string"}
        if reply.example is not None:
            content["example"] = reply.example
        described["content"] = {reply.media_type: content}
        if reply.may_stream:
            described["content"]["text/event-stream"] = {"schema": STREAMED_EVENT}
        if reply.may_be_csv:
            described["content"]["text/csv"] = {"schema": {"type": "string"}}
    return described


def _error_reply(status: int) -> dict[str, Any]:
    content = {"schema": _ref(responses.ErrorResponse)}
    described: dict[str, Any] = {"description": ERROR_REPLIES[status], "content": {"application/json": content}}
    if status in RETRYABLE:
        described["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return described


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMAS + model.__name__}


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    models = dict.fromkeys(_models(operations))
    _, described = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMAS + "{model}")
    return dict(described["$defs"])


def _models(operations: Sequence[Operation]) -> Iterator[type[BaseModel]]:
    yield responses.ErrorResponse
    yield DocumentMetadata
    for operation in operations:
        yield from (model for model in (operation.request_model, operation.json_instead) if model is not None)
        for reply in operation.replies.values():
            yield from (model for model in (reply.model, reply.event_data) if model is not None)
