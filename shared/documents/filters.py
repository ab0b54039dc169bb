"""Search filters: validates the JSON conditions of a client and parses them into a tree. ``filter_sql`` turns it into SQL."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from shared.errors import InvalidValue

Scalar = str | int | float | bool
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]

FIELDS = ("document_id", "name", "media_type", "size", "created_at", "page")
"""Fields of the document, except ``page``, which belongs to the chunk. ``created_at`` is in Unix seconds."""

METADATA = "metadata."
MAX_CONDITIONS = 100
MAX_VALUES = 1000
MAX_DEPTH = 8


@dataclass(frozen=True)
class Comparison:
    """A field compared with one value, or with several for ``in`` and ``nin``."""

    field: str
    operator: Operator
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Combination:
    """All parts (``and``), or at least one of them (``or``)."""

    word: Literal["and", "or"]
    parts: tuple["Condition", ...]


Condition = Comparison | Combination


def parse_filter(filter_json: object, param: str = "filter") -> Condition:
    """Parse JSON such as ``{"metadata.year": {"gte": 2020}, "or": [{"name": "a.pdf"}, {"page": 1}]}``.

    Raises InvalidValue with the path of the invalid part in ``param``.
    """
    condition = _parse(filter_json, param, 0)
    if _count(condition) > MAX_CONDITIONS:
        raise InvalidValue(f"{param}: must have at most {MAX_CONDITIONS} comparisons", param=param)
    return condition


def _parse(node: object, path: str, depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise InvalidValue(f"{path}: must not be nested more than {MAX_DEPTH} levels deep", param=path)
    if not isinstance(node, Mapping) or not node:
        raise InvalidValue(f'{path}: must be an object such as {{"name": "a.pdf"}} or {{"and": […]}}', param=path)
    parts: list[Condition] = []
    for name, value in node.items():
        child = f"{path}.{str(name)[:80]}"
        if name in ("and", "or"):
            if not isinstance(value, list) or not value:
                raise InvalidValue(f"{child}: must be a list of at least one filter", param=child)
            parts.append(Combination(name, tuple(_parse(part, f"{child}.{n}", depth + 1) for n, part in enumerate(value))))
        elif name in FIELDS or (str(name).startswith(METADATA) and len(name) > len(METADATA)):
            parts += _comparisons(name, value, child)
        else:
            raise InvalidValue(f"{child}: is not a field; use {', '.join(FIELDS)}, {METADATA}<key>, and, or or", param=child)
    return parts[0] if len(parts) == 1 else Combination("and", tuple(parts))


def _comparisons(name: str, value: object, path: str) -> list[Condition]:
    if not isinstance(value, Mapping):
        return [Comparison(name, "eq", (_scalar(value, path),))]
    if not value:
        raise InvalidValue(f"{path}: must have an operator: {', '.join(get_args(Operator))}", param=path)
    comparisons: list[Condition] = []
    for operator, operand in value.items():
        child = f"{path}.{str(operator)[:20]}"
        if operator not in get_args(Operator):
            raise InvalidValue(f"{child}: is not an operator; use one of {', '.join(get_args(Operator))}", param=child)
        if operator in ("in", "nin"):
            if not isinstance(operand, list) or not 1 <= len(operand) <= MAX_VALUES:
                raise InvalidValue(f"{child}: must be a list of 1 to {MAX_VALUES} values", param=child)
            values = tuple(_scalar(item, child) for item in operand)
        else:
            values = (_scalar(operand, child),)
        comparisons.append(Comparison(name, operator, values))
    return comparisons


def _scalar(value: Any, path: str) -> Scalar:
    if not isinstance(value, str | int | float | bool) or (isinstance(value, str) and len(value) > 512):
        raise InvalidValue(f"{path}: must be a string of at most 512 characters, a number, true or false", param=path)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InvalidValue(f"{path}: must be a number below 2^63", param=path)
    return value


def _count(condition: Condition) -> int:
    return 1 if isinstance(condition, Comparison) else sum(map(_count, condition.parts))
