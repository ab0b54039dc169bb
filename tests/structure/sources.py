"""The files that the structure tests check."""

import os
from collections.abc import Iterator
from pathlib import Path

from testing.repository import REPOSITORY

PACKAGES = ("api", "cli", "shared", "workers")
ALL_CODE = (*PACKAGES, "benchmarks", "client", "deploy", "examples", "testing", "tests")
DOCS = REPOSITORY / "docs"

# Created by tools or at run time, and ignored by git.
_MADE = {".venv", ".venv-clients", ".git", ".enginehouse", "__pycache__", "dist", "site", "node_modules"}
_MADE |= {".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis"}


def python_files(*folders: str) -> Iterator[Path]:
    """Every Python file of these top folders."""
    for folder in folders:
        yield from sorted((REPOSITORY / folder).rglob("*.py"))


def lua_files() -> list[Path]:
    return sorted((REPOSITORY / "shared").rglob("*.lua"))


def text_files() -> Iterator[Path]:
    """Every text file of the project."""
    for folder, inner, names in os.walk(REPOSITORY):
        inner[:] = [name for name in inner if name not in _MADE and not name.endswith(".egg-info")]
        for name in set(names) - _MADE:  # in a worktree .git is a file
            path = Path(folder, name)
            if b"\0" not in path.read_bytes()[:8192]:
                yield path


def pages() -> list[Path]:
    """Every documentation page: in the top folder and in docs."""
    return [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()
