"""SQL for search filters, over the text index's tables: d is a row of ``documents``, c a row of ``chunks``.

Values are bound as parameters, so no client input becomes part of the SQL.
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


def filter_to_sql(condition: Condition) -> tuple[str, list[Any]]:
    """The condition as SQL, and its parameters. A missing field matches only ``ne`` and ``nin``. Strings and numbers never
    compare as greater or less than each other."""
    if isinstance(condition, Combination):
        parts = [filter_to_sql(part) for part in condition.parts]
        return f"({f' {condition.word} '.join(sql for sql, _ in parts)})", [value for _, values in parts for value in values]
    return _comparison_sql(condition)


def _comparison_sql(comparison: Comparison) -> tuple[str, list[Any]]:
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
