"""JSON and JSON Lines: a line for each value, with the path that leads to it."""

import json
from collections.abc import Iterator
from typing import Any

from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, TextBuilder, clean_text, read_source
from workers.cpu.readers.text import decode

DEEPEST = 200


class JsonReader(InMemoryReader):
    """One value. What only looks like JSON is read as text."""

    name = "json"

    def __init__(self, source: Source, password: str) -> None:
        text = decode(read_source(source)).lstrip("\ufeff")
        builder = TextBuilder()
        try:
            value = json.loads(text)
        except RecursionError:
            raise _too_deep() from None
        except ValueError:
            builder.add(text)
        else:
            add_value(builder, value)
        super().__init__(builder.pages())


class JsonLinesReader(InMemoryReader):
    """One value a line; a blank line parts their texts. Lines that are no JSON are kept as they stand."""

    name = "json lines"

    def __init__(self, source: Source, password: str) -> None:
        builder = TextBuilder()
        bad = []
        for number, line in enumerate(decode(read_source(source)).lstrip("\ufeff").splitlines(), 1):
            if not line.strip():
                continue
            try:
                add_value(builder, json.loads(line))
            except RecursionError:
                raise _too_deep() from None
            except ValueError:
                bad.append(number)
                builder.line(line)
            builder.add("\n")
        if bad:
            builder.fault = f"{len(bad)} lines are no JSON and were taken as text, the first of them line {bad[0]}"
        super().__init__(builder.pages())


def add_value(builder: TextBuilder, value: Any) -> None:
    for path, leaf in _leaves(value):
        text = " ".join(clean_text(leaf if isinstance(leaf, str) else json.dumps(leaf)).split())
        if text:
            builder.line(f"{path}: {text}" if path else text)


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Each value that has no parts, with its path such as ``order.lines[2].price``. Raises Rejected when it goes too deep."""
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    while stack:
        path, here, depth = stack.pop()
        if depth > DEEPEST:
            raise _too_deep()
        if isinstance(here, dict):
            stack += [(f"{path}.{key}" if path else str(key), part, depth + 1) for key, part in reversed(here.items())]
        elif isinstance(here, list):
            stack += [(f"{path}[{place}]", part, depth + 1) for place, part in reversed(list(enumerate(here)))]
        else:
            yield path, here


def _too_deep() -> ReadError:
    return ReadError("too_large", f"It is nested more than {DEEPEST} levels deep.")
