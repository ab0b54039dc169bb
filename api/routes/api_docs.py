"""``/openapi.json`` for programs, and ``/docs`` for people: a page made from that document, whole without JavaScript.

Knows nothing of the calls but what the document says.
"""

import json
import re
from typing import Any, NamedTuple

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup, escape

from api.openapi.document import document
from api.routes.web_ui import HEADERS, WEB

blueprint = Blueprint("reference", __name__, template_folder=str(WEB))

LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "minLength": "{}+ characters"}
LIMITS |= {"maxLength": "≤ {} characters", "minItems": "{}+ items", "maxItems": "≤ {} items", "maxProperties": "≤ {} pairs"}


class Row(NamedTuple):
    """A field of a body or an answer, in words."""

    name: str
    type: str
    required: bool
    default: str
    meaning: str


@blueprint.get("/openapi.json")
def for_programs() -> Response:
    """The document."""
    return _conditional(json.dumps(document(), ensure_ascii=False), "application/json")


@blueprint.get("/docs")
def for_people() -> Response:
    """The page. Its content security policy lets no other host in."""
    tools = {"curl": curl, "prose": prose, "rows": rows, "words": words}
    page = render_template("reference.html", api=document(), server=request.host_url.rstrip("/"), **tools)
    return _conditional(page, "text/html; charset=utf-8")


def prose(text: str) -> Markup:
    """A description, whose words between backticks are code."""
    return Markup(re.sub(r"`+([^`]+)`+", r"<code>\1</code>", str(escape(text))))


def curl(path: str, method: str, operation: dict[str, Any], server: str) -> str:
    """A command line that makes this call, with the first of its examples."""
    parameters = operation.get("parameters", [])
    values = {item["name"]: item["example"] for item in parameters if item["in"] == "path"}
    words = [f"curl -X {method.upper()}" if method != "get" else "curl"]
    if any("text/event-stream" in reply.get("content", {}) for reply in operation["responses"].values()):
        words[0] += " -N"
    words[0] += f" {server}{path.format(**values)}"
    if operation.get("security") != []:
        words.append('-H "Authorization: Bearer $KEY"')
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        example = next(iter(content["application/json"]["examples"].values()))["value"]
        text = json.dumps(example, ensure_ascii=False).replace("'", "'\\''")
        words += ["-H 'Content-Type: application/json'", f"-d '{text}'"]
    elif content:
        words.append("-F file=@opening-hours.txt")
    return " \\\n  ".join(words)


def rows(schema: dict[str, Any]) -> list[Row]:
    """The fields of an object, or of what a list has of."""
    resolved = _resolved(schema.get("items", schema))
    required = resolved.get("required", [])
    return [
        Row(
            name,
            words(field),
            name in required,
            json.dumps(field["default"]) if field.get("default") not in (None, [], {}) else "",
            str(field.get("description", "")),
        )
        for name, field in resolved.get("properties", {}).items()
    ]


def words(schema: dict[str, Any]) -> str:
    """The type of a value and its limits."""
    if "$ref" in schema:
        named = _resolved(schema)
        return words(named) if "enum" in named else str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(words(choice) for choice in schema["anyOf"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {words(schema.get('items', {}))}"
    elif isinstance(schema.get("additionalProperties"), dict):
        kind = f"pairs of text and {words(schema['additionalProperties'])}"
    limits = [form.format(f"{schema[name]:,}") for name, form in LIMITS.items() if name in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: dict[str, Any] = document()["components"]["schemas"][name] if name else schema
    return found


def _conditional(text: str, content_type: str) -> Response:
    response = Response(text, content_type=content_type, headers=HEADERS)
    response.add_etag()
    response.make_conditional(request)
    return response
