"""Each move says at its top what it takes, what it touches, what it answers and what it promises."""

import re
from pathlib import Path

import pytest

from tests.structure.sources import lua_files, relative

MOVES = [path for path in lua_files() if path.name != "prelude.lua"]
PRELUDE = next(path for path in lua_files() if path.name == "prelude.lua").read_text(encoding="utf-8")


def header(text: str) -> str:
    found = re.match(r"(?:--.*\n)+", text)
    return found[0] if found else ""


@pytest.mark.parametrize("path", MOVES, ids=relative)
def test_a_move_has_a_header(path: Path) -> None:
    said = header(path.read_text(encoding="utf-8"))
    assert re.search(r"^-- ARGV\b", said, re.MULTILINE), "its arguments"
    assert re.search(r"^-- (Keys:|KEYS\[1\])", said, re.MULTILINE), "its keys"
    assert re.search(r"^-- Returns\b", said, re.MULTILINE), "its answer"
    if "jobs" in path.parts:
        assert re.search(r"^-- Promise:", said, re.MULTILINE), "its promise"


@pytest.mark.parametrize("path", MOVES, ids=relative)
def test_a_header_names_every_key_that_is_passed_in(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    said = header(text)
    for key in set(re.findall(r"KEYS\[\d+\]", text.removeprefix(said))):
        assert key in said


def test_every_kind_of_key_is_listed() -> None:
    for path in (path for path in lua_files() if "jobs" in path.parts):
        text = path.read_text(encoding="utf-8")
        for kind in set(re.findall(r"PREFIX \.\. '([a-z:]+)'", text)):
            assert kind.rstrip(":") in header(PRELUDE) + header(text), f"{relative(path)} touches {kind}"
