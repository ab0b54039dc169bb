"""Constraints of answers: JSON Schemas, checked before a job is accepted.

llguidance, which forces answers to match in the engine, checks them here with a tokenizer of bytes. It bounds its own work, and
releases the interpreter lock meanwhile; the limits below bound what it is given.
"""

import json
import re
from functools import cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer

from shared.errors import InvalidValue

MAX_SCHEMA_BYTES = 128 * 1024
MAX_SCHEMA_DEPTH = 64

# llguidance does not always name the keyword: parts of its messages, and the keyword that each is about.
_KEYWORDS = (
    ("regex parse error", "pattern"),
    (" in regex ", "pattern"),
    ("Pointer ", "$ref"),
    ("Resource ", "$ref"),
    ("multiple of", "multipleOf"),
    ("anyOf is empty", "enum or anyOf"),
)


def json_schema_constraint(schema: Any, param: str) -> dict[str, Any]:
    """The constraint of a spec for this schema. Raises InvalidValue, with the keyword that is not supported."""
    check_schema(schema, param)
    return {"type": "json_schema", "schema": schema}


def check_schema(schema: Any, param: str) -> None:
    """Raise InvalidValue unless answers can be forced to match this JSON Schema."""
    problem = _problem(json_text(schema, param))
    if problem:
        message = f"{param}: this schema is not supported: {_with_keyword(problem)}"
        raise InvalidValue(message, param=param, code="invalid_schema")


def json_text(value: Any, param: str) -> str:
    """A value of a request that may have any form as JSON. Raises InvalidValue if it is too deep or too large, or no JSON."""
    if _depth_exceeds(value, MAX_SCHEMA_DEPTH):
        raise InvalidValue(f"{param}: may be nested at most {MAX_SCHEMA_DEPTH} deep", param=param)
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        # A number such as 1e999.
        raise InvalidValue(f"{param}: has a number that is not finite", param=param) from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise InvalidValue(f"{param}: may have at most {MAX_SCHEMA_BYTES} bytes as JSON, not {len(text)}", param=param)
    return text


def _problem(schema: str) -> str:
    try:
        grammar = LLMatcher.grammar_from_json_schema(schema)
    except ValueError as error:
        return str(error)[:500]
    # Checking the grammar reads the schema; making a matcher also builds the automata, which have limits of their own.
    problem = LLMatcher.validate_grammar(grammar, _byte_tokenizer())
    if problem and not problem.startswith("WARNING"):
        return problem.splitlines()[0][:500] if "regex" not in problem else " ".join(problem.split())[:500]
    matcher = LLMatcher(_byte_tokenizer(), grammar, log_level=0)
    return " ".join(matcher.get_error().split())[:500] if matcher.is_error() else ""


def _with_keyword(problem: str) -> str:
    if keywords := re.match(r"Unimplemented keys: \[(.*)\]", problem):
        return f"answers cannot be forced to match {keywords[1]}"
    if problem.startswith("oneOf "):
        return (
            "oneOf: the alternatives must exclude each other by their types or by a constant in a required property; or use anyOf"
        )
    keyword = next((keyword for part, keyword in _KEYWORDS if part in problem and keyword not in problem), "")
    return f"{keyword}: {problem}" if keyword else problem


@cache
def _byte_tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")


def _depth_exceeds(value: Any, limit: int) -> bool:
    """Whether containers are nested deeper than this; without recursion, as the value may be anything."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
