"""File discovery of ``enginehouse ingest``."""

import os
from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.remote.bulk_ingest.file_discovery import find_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in ("a.txt", "b.pdf", "deep/a.txt", "deep/er/c.md", ".hidden/x.txt", "deep/.y.txt", "other/a.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    return tmp_path


def names(*places: Path | str, **patterns: list[str]) -> list[str]:
    return [file.name for file in find_files(map(str, places), **patterns)]


def test_files_of_a_folder_are_named_by_relative_path(folder: Path) -> None:
    assert names(folder) == ["a.txt", "b.pdf", "deep/a.txt", "deep/er/c.md", "other/a.txt"]


def test_patterns_match_names_and_paths(folder: Path) -> None:
    assert names(folder, include=["*.txt"]) == ["a.txt", "deep/a.txt", "other/a.txt"]
    assert names(folder, include=["*.txt", "*.md"], exclude=["deep/a*"]) == ["a.txt", "deep/er/c.md", "other/a.txt"]
    assert names(folder, exclude=["*"]) == []


def test_a_glob_pattern_is_expanded(folder: Path) -> None:
    assert names(folder / "**" / "*.md") == ["c.md"]
    assert names(folder / "*.csv") == []


def test_a_file_is_found_once(folder: Path) -> None:
    assert names(folder / "a.txt", folder / "*.txt", folder / "a.txt") == ["a.txt"]


def test_names_are_unique(folder: Path) -> None:
    """A repeated name would replace the earlier document with a new version."""
    here = names(folder / "deep" / "a.txt", folder / "other" / "a.txt", folder / "b.pdf")
    assert here == [(folder / "deep/a.txt").as_posix(), (folder / "other/a.txt").as_posix(), "b.pdf"]


def test_names_that_are_not_utf8_are_escaped(folder: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.txt")
    (folder / "deep" / odd).write_text("coffee")
    assert r"deep/caf\xe9.txt" in names(folder)
    assert names(folder / "deep" / odd) == [r"caf\xe9.txt"]
    [file] = find_files([str(folder / "deep" / odd)], prefix="2024/")
    assert (file.name, file.path.read_text()) == (r"2024/caf\xe9.txt", "coffee")


def test_a_file_name_with_glob_characters_is_a_file(folder: Path) -> None:
    (folder / "[draft].txt").write_text("x")
    assert names(folder / "[draft].txt") == ["[draft].txt"]


def test_a_missing_path_is_an_error(folder: Path) -> None:
    with pytest.raises(CommandError, match=r"no file or folder .*nothing"):
        names(folder, folder / "nothing")
