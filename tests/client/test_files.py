"""Which files are uploaded, under which names, and in which groups."""

from pathlib import Path

import pytest

from enginehouse_client.files import Source, sources, split_into_requests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", ".hidden", ".git/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_files_of_a_folder_are_named_by_their_relative_path(folder: Path) -> None:
    assert [source.name for source in sources(folder)] == ["a.txt", "b.txt", "deep/er/c.txt"]


def test_files_folders_and_bytes_can_be_mixed(folder: Path) -> None:
    given = [str(folder / "b.txt"), ("note.txt", b"bytes"), folder / "deep"]
    found = list(sources(given))
    assert [source.name for source in found] == ["b.txt", "note.txt", "er/c.txt"]
    assert [source.open().read() for source in found] == [b"b.txt", b"bytes", b"deep/er/c.txt"]
    assert [source.name for source in sources(("note.txt", b"bytes"))] == ["note.txt"]


def test_a_missing_file_raises(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nope\.txt"):
        list(sources(folder / "nope.txt"))


def test_requests_are_bounded_in_number_and_bytes() -> None:
    files = [Source(str(number), bytes(10)) for number in range(7)]
    assert [len(portion) for portion in split_into_requests(files, max_files=3)] == [3, 3, 1]
    assert [len(portion) for portion in split_into_requests(files, max_files=100, max_bytes=25)] == [2, 2, 2, 1]
    assert [len(portion) for portion in split_into_requests([Source("big", bytes(100)), *files[:1]], max_bytes=25)] == [1, 1]
    assert list(split_into_requests([])) == []


def test_a_file_can_be_renamed(folder: Path) -> None:
    [path] = [one for one in folder.rglob("*") if one.is_file()][:1]
    assert [(source.name, source.content) for source in sources([("other/name.txt", path)])] == [("other/name.txt", path)]
    assert [source.name for source in sources(("one.txt", path))] == ["one.txt"], "one such pair is one file"


def test_reading_a_file_reports_progress(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 200_000)
    for source in sources([tmp_path / "large", ("bytes", b"y" * 200_000)]):
        reported: list[int] = []
        with source.open(reported.append) as file:
            whole = b"".join(iter(lambda file=file: file.read(1000), b""))
            assert len(whole) == 200_000
            assert reported[-1] == 200_000
            assert reported == sorted(reported)
            assert 3 < len(reported) < 20, "in pieces, and not for each byte"
            file.seek(0)
            assert file.read() == whole, "a request that is sent again begins at its start"
