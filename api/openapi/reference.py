"""Template functions that turn the OpenAPI document into a web page that needs no JavaScript."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from api.openapi.document import api_document
from shared.packaged_files import CODE_ROOT

TEMPLATE_FOLDER = str(CODE_ROOT / "web" / "reference")

LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "minLength": "{}+ characters"}
LIMITS |= {"maxLength": "≤ {} characters", "minItems": "{}+ items", "maxItems": "≤ {} items", "maxProperties": "≤ {} pairs"}


class FieldRow(NamedTuple):
    """A field of a request or a response, as a row of a table."""

    name: str
    type: str
    required: bool
    default: str
    meaning: str


def format_text(text: str) -> Markup:
    """A description as HTML, with text between backticks as code."""
    return Markup(re.sub(r"(?<!`)`+([^`]+)`+", r"<code>\1</code>", str(escape(text))))


def curl_command(path: str, method: str, operation: dict[str, Any], server: str) -> str:
    """A command line that makes this call, with its first example."""
    parameters = operation.get("parameters", [])
    values = {item["name"]: item["example"] for item in parameters if item["in"] == "path"}
    parts = [f"curl -X {method.upper()}" if method != "get" else "curl"]
    if any("text/event-stream" in reply.get("content", {}) for reply in operation["responses"].values()):
        parts[0] += " -N"
    parts[0] += f" {server}{path.format(**values)}"
    if operation.get("security") != []:
        parts.append('-H "Authorization: Bearer $KEY"')
    content = operation.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        parts.append("-F file=@opening-hours.txt")
    elif "application/json" in content:
        example = next(iter(content["application/json"]["examples"].values()))["value"]
        text = json.dumps(example, ensure_ascii=False).replace("'", "'\\''")
        parts += ["-H 'Content-Type: application/json'", f"-d '{text}'"]
    return " \\\n  ".join(parts)


def field_rows(schema: dict[str, Any]) -> list[FieldRow]:
    """The fields of an object, or of the entries of a list."""
    resolved = _resolved(schema.get("items", schema))
    required = resolved.get("required", [])
    return [
        FieldRow(
            name,
            type_text(field),
            name in required,
            json.dumps(field["default"]) if field.get("default") not in (None, [], {}) else "",
            str(field.get("description", "")),
        )
        for name, field in resolved.get("properties", {}).items()
    ]


def type_text(schema: dict[str, Any]) -> str:
    """The type of a value, with its limits."""
    if "$ref" in schema:
        target = _resolved(schema)
        return type_text(target) if "enum" in target else str(schema["$ref"]).rpartition("/")[2]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(type_text, choices)))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {type_text(schema.get('items', {}))}"
    elif isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {type_text(schema['additionalProperties'])}"
    limits = [form.format(f"{schema[name]:,}") for name, form in LIMITS.items() if name in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    resolved: dict[str, Any] = api_document()["components"]["schemas"][name] if name else schema
    return resolved


TEMPLATE_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "curl_command": curl_command,
    "format_text": format_text,
    "field_rows": field_rows,
    "type_text": type_text,
}
