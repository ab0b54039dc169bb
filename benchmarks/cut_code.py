"""A copy of this code without some of its parts, for a benchmark that shows what they cost."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from testing.repository import REPOSITORY

Cut = tuple[str, str, str]
"""A file, a text that it contains once, and the replacement of the text."""


def copy_code(target: Path, names: Iterable[str], cuts: Iterable[Cut] = ()) -> Path:
    """Copy these files and folders of the repository into ``target``, with these cuts, and return it."""
    for name in names:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        else:
            shutil.copy(source, target / name)
    for name, text, replacement in cuts:
        file = target / name
        before = file.read_text(encoding="utf-8")
        assert before.count(text) == 1, f"{name} has changed, and this benchmark has not"
        file.write_text(before.replace(text, replacement), encoding="utf-8")
    return target
