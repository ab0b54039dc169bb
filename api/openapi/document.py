"""The API described for programs, as an OpenAPI 3.1 document.

Bodies come from the very models that validate them, answers from ``schemas``, calls from ``operations``.
"""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.operations import OPERATIONS
from api.operations.operation import HEADERS, REFUSALS, RETRYABLE, Operation, Parameter, Reply
from api.schemas import responses
from api.schemas.requests import DocumentMetadata, JobWebhook
from shared.documents.passwords import LONGEST as LONGEST_PASSWORD

SCHEMAS = "#/components/schemas/"

WEBHOOK_FIELD = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"$ref": f"{SCHEMAS}{JobWebhook.__name__}"},
    "description": "Where it is told how this ends.",
}

PASSWORD_FIELD = {
    "type": "string",
    "maxLength": LONGEST_PASSWORD,
    "description": "Opens those of these files that are encrypted. Forgotten once they are read.",
}

METADATA_FIELD = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"$ref": f"{SCHEMAS}{DocumentMetadata.__name__}"},
    "description": "A JSON object of what is known of these files; searches can ask for it.",
}

ABOUT = """\
Jobs on language models of your own. An accepted job (202) reaches exactly one final status. Times are Unix seconds, durations
seconds; an error says what happened, to what, and what to do. While no API key exists, callers on the server's own machine need
none; from the first key on, every call wants `Authorization: Bearer eh_…`, except those that are marked open."""


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
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
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": dict(HEADERS),
            "responses": {str(status): _refusal(status) for status in REFUSALS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _version() -> str:
    try:
        return version("enginehouse")
    except PackageNotFoundError:
        return "unreleased"  # served from a folder that nobody has installed


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
    if operation.body is not None or operation.files:
        described["requestBody"] = {"required": operation.body_required, "content": _content(operation)}
    described["responses"] = {str(status): _reply(reply) for status, reply in operation.replies.items()} | {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in operation.statuses
    }
    if operation.open:
        described["security"] = []
    return described


def _operation_id(operation: Operation) -> str:
    words = operation.path.replace("{", "").replace("}", "").replace(".", "/").split("/")
    return "_".join([operation.method, *(word for word in words if word)])


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    if parameter.required:
        described["required"] = True
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _content(operation: Operation) -> dict[str, Any]:
    if operation.body is not None:
        examples = {name: {"summary": example.summary, "value": example.body} for name, example in operation.examples.items()}
        return {"application/json": {"schema": _ref(operation.body), "examples": examples}}
    file: dict[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}
    if operation.files > 1:
        file = {"type": "array", "items": file, "minItems": 1, "maxItems": operation.files}
    examples = {
        name: {"summary": example.summary, "value": {"file": [example.body] if operation.files > 1 else example.body}}
        for name, example in operation.examples.items()
    }
    form = {
        "type": "object",
        "properties": {"file": file, "webhook": WEBHOOK_FIELD, "metadata": METADATA_FIELD, "password": PASSWORD_FIELD},
        "required": ["file"],
    }
    return {"multipart/form-data": {"schema": form, "examples": examples}}


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
    return described


def _refusal(status: int) -> dict[str, Any]:
    content = {"schema": _ref(responses.ErrorAnswer)}
    described: dict[str, Any] = {"description": REFUSALS[status], "content": {"application/json": content}}
    if status in RETRYABLE:
        described["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return described


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": SCHEMAS + model.__name__}


def _schemas() -> dict[str, Any]:
    models = dict.fromkeys(_models())
    _, described = models_json_schema([(model, "validation") for model in models], ref_template=SCHEMAS + "{model}")
    return dict(described["$defs"])


def _models() -> Iterator[type[BaseModel]]:
    yield responses.ErrorAnswer
    yield DocumentMetadata
    for operation in OPERATIONS:
        if operation.body is not None:
            yield operation.body
        for reply in operation.replies.values():
            yield from (model for model in (reply.model, reply.also) if model is not None)
