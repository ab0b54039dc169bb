"""Readers of JSON and JSON Lines: one line for each value, with its path."""

import json
from collections.abc import Iterator
from typing import Any

from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import decode_text, replacement_fault
from workers.cpu.readers.text_builder import TextBuilder, clean_text

MAX_DEPTH = 200


class JsonReader(InMemoryReader):
    """One JSON value. Invalid JSON is read as JSON Lines if its lines are valid, and else as text."""

    name = "json"

    def __init__(self, source: Source, password: str) -> None:
        decoded = decode_text(read_source(source))
        text = decoded.text.lstrip("\ufeff")
        builder = TextBuilder()
        builder.fault = replacement_fault(decoded)
        try:
            value = _load(text)
        except RecursionError:
            raise _too_deep() from None
        except ValueError:
            if all(_is_valid(line) for line in _lines(text)):
                _add_lines(builder, text)
            else:
                builder.add_text(text)
        else:
            add_value(builder, value)
        super().__init__(builder.build_pages())


class JsonLinesReader(InMemoryReader):
    """One JSON value per line, separated by blank lines in the text. Invalid lines are kept unchanged."""

    name = "json lines"

    def __init__(self, source: Source, password: str) -> None:
        builder = TextBuilder()
        decoded = decode_text(read_source(source))
        builder.fault = replacement_fault(decoded)
        _add_lines(builder, decoded.text.lstrip("\ufeff"))
        super().__init__(builder.build_pages())


def _add_lines(builder: TextBuilder, text: str) -> None:
    invalid = 0
    first = ""
    for line in _lines(text):
        try:
            add_value(builder, _load(line))
        except RecursionError:
            raise _too_deep() from None
        except ValueError:
            invalid += 1
            first = first or line
            builder.add_line(line)
        builder.add_text("\n")
    if invalid:
        number = 1 + text.count("\n", 0, text.index(first))
        fault = f"has {invalid} lines of invalid JSON that were read as text; the first is line {number}"
        builder.fault = "; ".join(filter(None, [builder.fault, fault]))


def _lines(text: str) -> Iterator[str]:
    """Lines that are not blank. Only a newline ends a line: strings may contain other characters that end lines elsewhere,
    such as U+2028."""
    return (line for line in text.split("\n" if "\n" in text else "\r") if line.strip())


class _Pairs(list[tuple[str, Any]]):
    """An object that has a key more than once."""


def _load(text: str) -> Any:
    def from_pairs(pairs: list[tuple[str, Any]]) -> Any:
        unique = dict(pairs)
        return unique if len(unique) == len(pairs) else _Pairs(pairs)

    # Numbers stay as they are written: a float has 17 digits at most.
    return json.loads(text, object_pairs_hook=from_pairs, parse_float=str, parse_int=str, parse_constant=str)


def _is_valid(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def add_value(builder: TextBuilder, value: Any) -> None:
    for path, leaf in _leaves(value):
        text = " ".join(clean_text(leaf if isinstance(leaf, str) else json.dumps(leaf)).split())
        if text:
            builder.add_line(f"{path}: {text}" if path else text)
        elif path:
            builder.add_line(f"{path}:")  # a name without a value may be all that is said


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Scalar values with their paths, such as ``order.lines[2].price``; "" for an empty object or list. Raises ReadError beyond MAX_DEPTH."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        path, node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise _too_deep()
        if not node and isinstance(node, dict | list):
            yield path, ""
        elif isinstance(node, dict | _Pairs):
            pairs = list(node.items()) if isinstance(node, dict) else node
            stack += [(f"{path}.{key}" if path else str(key), part, depth + 1) for key, part in reversed(pairs)]
        elif isinstance(node, list):
            stack += [(f"{path}[{index}]", part, depth + 1) for index, part in reversed(list(enumerate(node)))]
        else:
            yield path, node


def _too_deep() -> ReadError:
    return ReadError("too_large", f"The JSON is nested more than {MAX_DEPTH} levels deep.")
