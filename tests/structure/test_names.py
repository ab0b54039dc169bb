"""Files are named for what is in them, and say what that is."""

import ast
import sys

from tests.structure.sources import ALL_CODE, python_files, relative

DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers"}

# `io` is loaded before Python looks at any folder, so the pool of that name cannot hide it, wherever a script is started.
HARMLESS = {"workers/io"}


def test_no_module_hides_one_of_the_standard_library() -> None:
    modules = {path.parent if path.name == "__init__.py" else path for path in python_files(*ALL_CODE)}
    hiding = {relative(path) for path in modules if path.stem in sys.stdlib_module_names}
    assert hiding <= HARMLESS, sorted(hiding - HARMLESS)


def test_no_module_is_a_drawer() -> None:
    words = {relative(path): {path.stem, path.parent.name} for path in python_files(*ALL_CODE)}
    assert not [path for path, names in words.items() if names & DRAWERS]


def test_every_module_says_what_it_is() -> None:
    silent = [
        relative(path)
        for path in python_files(*ALL_CODE)
        if (text := path.read_text(encoding="utf-8")).strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent
