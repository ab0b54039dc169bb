"""Rewrites JSON Schemas around two defects of llguidance 1.9.1, which allow answers that do not match the schema.

The rewritten schema allows a little less than the original: tests/flows/openai/test_random_schemas.py shows that all answers match the original.
"""

import re
from collections.abc import Mapping
from typing import Any

# Keywords whose values are data, and keywords whose values are schemas by name.
_DATA = frozenset({"const", "default", "enum", "examples"})
_NAMED = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})

_REGEX_PARTS = re.compile(r"\\.|\[\^(?!\])|.", re.DOTALL)

# How far an exclusive bound moves, as a part of the range.
_STEP = 1e-6


def enforceable_schema(schema: Any) -> Any:
    """A schema whose answers all match ``schema``."""
    if isinstance(schema, list):
        return [enforceable_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {**{key: _value(key, value) for key, value in schema.items()}, **_inclusive_bounds(schema)}


def _value(key: str, value: Any) -> Any:
    if key in _DATA:
        return value
    if key == "pattern" and isinstance(value, str):
        return _without_nul(value)
    if key in _NAMED and isinstance(value, dict):
        rename = _without_nul if key == "patternProperties" else str
        return {rename(name): enforceable_schema(item) for name, item in value.items()}
    return enforceable_schema(value)


def _without_nul(pattern: str) -> str:
    """A pattern whose negated character classes do not match NUL.

    A class that matches all control characters also allows an escaped quote and backslash, even ``[^"]``.
    """
    parts, is_class = [], False
    for part in _REGEX_PARTS.findall(pattern):
        parts.append(part)
        if part == "[^" and not is_class:
            parts.append(r"\x00")
        is_class = part in ("[", "[^") or (is_class and part != "]")
    return "".join(parts)


def _inclusive_bounds(schema: Mapping[str, Any]) -> dict[str, float]:
    """Bounds to add if an exclusive whole bound is less than 1 away from the other, as in ``0 < x <= 0.5``, which allows ``0``."""
    low, high = _bound(schema, "exclusiveMinimum", "minimum", max), _bound(schema, "exclusiveMaximum", "maximum", min)
    if low is None or high is None or not 0 < high - low < 1:
        return {}
    step = (high - low) * _STEP
    changed: dict[str, float] = {}
    if schema.get("exclusiveMinimum") == low == int(low) and low >= 0:
        changed["minimum"] = low + step
    if schema.get("exclusiveMaximum") == high == int(high) and high <= 0:
        changed["maximum"] = high - step
    return changed


def _bound(schema: Mapping[str, Any], exclusive: str, inclusive: str, stricter: Any) -> float | None:
    # In old drafts the exclusive ones are booleans.
    values = [schema.get(exclusive), schema.get(inclusive)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return stricter(numbers) if numbers else None
