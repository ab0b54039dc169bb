"""Which files an ingest is about, and what they are called."""

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


def test_a_folder_gives_all_below_it_by_their_place(folder: Path) -> None:
    assert names(folder) == ["a.txt", "b.pdf", "deep/a.txt", "deep/er/c.md", "other/a.txt"]


def test_patterns_choose_by_name_and_by_place(folder: Path) -> None:
    assert names(folder, include=["*.txt"]) == ["a.txt", "deep/a.txt", "other/a.txt"]
    assert names(folder, include=["*.txt", "*.md"], exclude=["deep/a*"]) == ["a.txt", "deep/er/c.md", "other/a.txt"]
    assert names(folder, exclude=["*"]) == []


def test_a_pattern_is_a_place_too(folder: Path) -> None:
    assert names(folder / "**" / "*.md") == ["c.md"]
    assert names(folder / "*.csv") == []


def test_a_file_comes_once(folder: Path) -> None:
    assert names(folder / "a.txt", folder / "*.txt", folder / "a.txt") == ["a.txt"]


def test_no_two_files_have_one_name(folder: Path) -> None:
    """A name that comes again would stand for a new version of the file before it."""
    here = names(folder / "deep" / "a.txt", folder / "other" / "a.txt", folder / "b.pdf")
    assert here == [(folder / "deep/a.txt").as_posix(), (folder / "other/a.txt").as_posix(), "b.pdf"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "[draft].txt").write_text("x")
    assert names(folder / "[draft].txt") == ["[draft].txt"]


def test_what_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(CommandError, match=r"no file or folder .*nothing"):
        names(folder, folder / "nothing")
