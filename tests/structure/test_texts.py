"""What no file of the project may hold: the place where somebody works, where packages come from, and unfinished business."""

import re

import pytest

from tests.structure.sources import relative, text_files

# Put together from halves, as this file is looked at too.
FORBIDDEN = {
    "a folder of one machine": r"(?<![\w.])/(?:ho" r"me|Us" r"ers|ro" r"ot|wo" r"rk)/\w",
    "the host of a package registry": r"py"
    r"pi\.org|pythonho"
    r"sted|npm"
    r"js\.(?:org|com)|gh"
    r"cr\.io|docker"
    r"\.io|qu"
    r"ay\.io",
    "unfinished business": r"\b(?:TO" r"DO|FIX" r"ME)\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{relative(path)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found
