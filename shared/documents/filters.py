"""Conditions on documents and chunks that a search must meet: what a client may write, checked and made into a tree.

Knows nothing of how they are tested; ``filter_sql`` turns the tree into SQL.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from shared.errors import InvalidValue

Scalar = str | int | float | bool
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]

FIELDS = ("document_id", "name", "media_type", "size", "created_at", "page")
"""Of the document, except for ``page``, which is of the chunk; ``created_at`` is in Unix seconds."""

METADATA = "metadata."
MOST_CONDITIONS = 100
MOST_VALUES = 1000
DEEPEST = 8


@dataclass(frozen=True)
class Comparison:
    """A field against one value, or against several for ``in`` and ``nin``."""

    field: str
    operator: Operator
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Combination:
    """All of the parts (``and``), or at least one of them (``or``)."""

    word: Literal["and", "or"]
    parts: tuple["Condition", ...]


Condition = Comparison | Combination


def parse_filter(given: object, param: str = "filter") -> Condition:
    """From JSON such as ``{"metadata.year": {"gte": 2020}, "or": [{"name": "a.pdf"}, {"page": 1}]}`` to the tree.

    Raises InvalidValue, which names the place.
    """
    condition = _parse(given, param, 0)
    if _count(condition) > MOST_CONDITIONS:
        raise InvalidValue(f"{param}: may compare at most {MOST_CONDITIONS} fields", param=param)
    return condition


def _parse(given: object, where: str, depth: int) -> Condition:
    if depth > DEEPEST:
        raise InvalidValue(f"{where}: filters may be nested {DEEPEST} deep", param=where)
    if not isinstance(given, Mapping) or not given:
        raise InvalidValue(f'{where}: must be an object such as {{"name": "a.pdf"}} or {{"and": […]}}', param=where)
    parts: list[Condition] = []
    for name, value in given.items():
        here = f"{where}.{str(name)[:80]}"
        if name in ("and", "or"):
            if not isinstance(value, list) or not value:
                raise InvalidValue(f"{here}: must be a list of at least one filter", param=here)
            parts.append(Combination(name, tuple(_parse(part, f"{here}.{n}", depth + 1) for n, part in enumerate(value))))
        elif name in FIELDS or (str(name).startswith(METADATA) and len(name) > len(METADATA)):
            parts += _comparisons(name, value, here)
        else:
            raise InvalidValue(
                f"{here}: is not a field; there are {', '.join(FIELDS)}, {METADATA}<key>, and the words and, or", param=here
            )
    return parts[0] if len(parts) == 1 else Combination("and", tuple(parts))


def _comparisons(name: str, value: object, where: str) -> list[Condition]:
    if not isinstance(value, Mapping):
        return [Comparison(name, "eq", (_scalar(value, where),))]
    if not value:
        raise InvalidValue(f"{where}: name an operator: {', '.join(get_args(Operator))}", param=where)
    found: list[Condition] = []
    for operator, operand in value.items():
        here = f"{where}.{str(operator)[:20]}"
        if operator not in get_args(Operator):
            raise InvalidValue(f"{here}: is not an operator; there are {', '.join(get_args(Operator))}", param=here)
        if operator in ("in", "nin"):
            if not isinstance(operand, list) or not 1 <= len(operand) <= MOST_VALUES:
                raise InvalidValue(f"{here}: must be a list of 1 to {MOST_VALUES} values", param=here)
            values = tuple(_scalar(item, here) for item in operand)
        else:
            values = (_scalar(operand, here),)
        found.append(Comparison(name, operator, values))
    return found


def _scalar(value: Any, where: str) -> Scalar:
    if not isinstance(value, str | int | float | bool) or (isinstance(value, str) and len(value) > 512):
        raise InvalidValue(f"{where}: must be a text of at most 512 characters, a number, or true or false", param=where)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InvalidValue(f"{where}: must be a number below 2^63", param=where)
    return value


def _count(condition: Condition) -> int:
    return 1 if isinstance(condition, Comparison) else sum(map(_count, condition.parts))
