"""Readers of JSON and JSON Lines: one line for each value, with its path."""

import json
from collections.abc import Iterator
from typing import Any

from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import decode
from workers.cpu.readers.text_builder import TextBuilder, clean_text

MAX_DEPTH = 200


class JsonReader(InMemoryReader):
    """One JSON value. Invalid JSON is read as text."""

    name = "json"

    def __init__(self, source: Source, password: str) -> None:
        text = decode(read_source(source)).lstrip("\ufeff")
        builder = TextBuilder()
        try:
            value = json.loads(text)
        except RecursionError:
            raise _too_deep() from None
        except ValueError:
            builder.add_text(text)
        else:
            add_value(builder, value)
        super().__init__(builder.build_pages())


class JsonLinesReader(InMemoryReader):
    """One JSON value per line, separated by blank lines in the text. Invalid lines are kept unchanged."""

    name = "json lines"

    def __init__(self, source: Source, password: str) -> None:
        builder = TextBuilder()
        invalid = []
        for number, line in enumerate(decode(read_source(source)).lstrip("\ufeff").splitlines(), 1):
            if not line.strip():
                continue
            try:
                add_value(builder, json.loads(line))
            except RecursionError:
                raise _too_deep() from None
            except ValueError:
                invalid.append(number)
                builder.add_line(line)
            builder.add_text("\n")
        if invalid:
            builder.fault = f"has {len(invalid)} lines of invalid JSON that were read as text; the first is line {invalid[0]}"
        super().__init__(builder.build_pages())


def add_value(builder: TextBuilder, value: Any) -> None:
    for path, leaf in _leaves(value):
        text = " ".join(clean_text(leaf if isinstance(leaf, str) else json.dumps(leaf)).split())
        if text:
            builder.add_line(f"{path}: {text}" if path else text)


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Scalar values with their paths, such as ``order.lines[2].price``. Raises ReadError beyond MAX_DEPTH."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        path, node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(node, dict):
            stack += [(f"{path}.{key}" if path else str(key), part, depth + 1) for key, part in reversed(node.items())]
        elif isinstance(node, list):
            stack += [(f"{path}[{index}]", part, depth + 1) for index, part in reversed(list(enumerate(node)))]
        else:
            yield path, node


def _too_deep() -> ReadError:
    return ReadError("too_large", f"The JSON is nested more than {MAX_DEPTH} levels deep.")
