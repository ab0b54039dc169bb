"""A filter as SQL over the tables of the text index: d is a row of its documents, c one of its chunks.

Values travel beside the SQL, so nothing that a client wrote becomes part of it.
"""

from typing import Any

from shared.documents.filters import METADATA, Combination, Comparison, Condition

_FIELDS = {
    "document_id": "d.id",
    "name": "d.name",
    "media_type": "d.media_type",
    "size": "d.size",
    "created_at": "d.created_at",
    "page": "c.page",
}
_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def sql_of(condition: Condition) -> tuple[str, list[Any]]:
    """The condition as SQL over d (documents) and c (chunks). What is missing meets ``ne`` and ``nin`` alone, and a text is
    neither above nor below a number."""
    if isinstance(condition, Combination):
        parts = [sql_of(part) for part in condition.parts]
        return f"({f' {condition.word} '.join(sql for sql, _ in parts)})", [value for _, values in parts for value in values]
    return _compared(condition)


def _compared(comparison: Comparison) -> tuple[str, list[Any]]:
    values: list[Any] = list(comparison.values)
    if comparison.field.startswith(METADATA):
        field = "(select j.value from json_each(d.metadata) j where j.key = ?)"
        key = [comparison.field.removeprefix(METADATA)]
    else:
        field, key = _FIELDS[comparison.field], []
    marks = ", ".join("?" * len(values))
    match comparison.operator:
        case "eq" | "in":
            return f"coalesce({field} in ({marks}), 0)", [*key, *values]
        case "ne" | "nin":
            return f"not coalesce({field} in ({marks}), 0)", [*key, *values]
        case operator:
            text = "=" if isinstance(values[0], str) else "<>"
            return f"(typeof({field}) {text} 'text' and {field} {_SIGNS[operator]} ?)", [*key, *key, *values]
