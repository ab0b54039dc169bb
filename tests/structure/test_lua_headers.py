"""Each script documents its arguments, keys, result and promise, and addresses nothing by position. Its statuses are those of Python."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from shared.documents.models import IN_PROGRESS
from shared.jobs.models import Status
from shared.lua_scripts import header_line
from tests.structure.sources import lua_files, relative

LIBRARY = [path for path in lua_files() if path.parent.name == "lib"]
SCRIPTS = [path for path in lua_files() if path.parent.name != "lib"]
# Which library file writes the records with this key prefix; no other job script or library file of jobs may.
OWNERS = {"document:": "document", "session:": "session", "delivery:": "delivery"}


def header(text: str) -> str:
    found = re.match(r"(?:--.*\n)+", text)
    return found[0] if found else ""


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_a_script_documents_itself(path: Path) -> None:
    first = header(path.read_text(encoding="utf-8"))
    assert first.startswith(f"-- {path.stem}: ")
    for title in ("Uses:", "Arguments:", "Keys:", "Returns"):
        assert re.search(rf"^-- {title}", first, re.MULTILINE), title
    if relative(path).startswith("shared/jobs/"):
        assert re.search(r"^-- Promise:", first, re.MULTILINE)


@pytest.mark.parametrize("path", [*SCRIPTS, *LIBRARY], ids=relative)
def test_nothing_is_addressed_by_position(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(ARGV|KEYS)\b", text)
    assert not re.search(r"\b(job|batch|record|delivery|document|endpoint|session)\[\d", text)


def test_every_kind_of_key_is_listed() -> None:
    listed = "".join(header(path.read_text(encoding="utf-8")) for path in LIBRARY)
    listed += "".join(re.findall(r"^--   .*\n", "".join(path.read_text(encoding="utf-8") for path in LIBRARY), re.MULTILINE))
    for path in (path for path in lua_files() if not relative(path).startswith("shared/documents/") and path.stem != "document"):
        text = path.read_text(encoding="utf-8")
        for kind in set(re.findall(r"PREFIX \.\. '([a-z:]+)'", text)):
            assert kind.rstrip(":") in listed + header(text), f"{relative(path)} uses {kind}"


@pytest.mark.parametrize("path", [path for path in lua_files() if relative(path).startswith("shared/jobs/")], ids=relative)
def test_documents_sessions_and_deliveries_are_written_by_their_library_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for prefix, owner in OWNERS.items():
        assert path.stem == owner or f"PREFIX .. '{prefix}'" not in text


def test_headers_name_existing_library_files() -> None:
    names = {path.stem for path in LIBRARY}
    for path in lua_files():
        used = header_line(path.read_text(encoding="utf-8"), "Uses")
        assert set(filter(None, re.split(r", *", used))) <= names


@pytest.mark.parametrize(
    ("library", "constant", "expected"),
    [
        ("document", "IN_PROGRESS", IN_PROGRESS),
        ("job", "FINAL", [status.value for status in Status if status.final]),
        ("job_index", "STATUSES", [status.value for status in Status]),
    ],
)
def test_statuses_are_those_of_python(library: str, constant: str, expected: Sequence[str]) -> None:
    [text] = (path.read_text(encoding="utf-8") for path in LIBRARY if path.stem == library)
    [table] = re.findall(rf"^local {constant} = {{([^}}]+)}}", text, re.MULTILINE)
    assert sorted(re.findall(r"\w+(?= = true)|(?<=')\w+(?=')", table)) == sorted(expected)
