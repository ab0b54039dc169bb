"""``enginehouse logs``: old parts first, one process, and new lines across a rename."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.local.log_file import log_file, read_log


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = log_file(tmp_path)
    path.parent.mkdir()
    path.with_name(path.name + ".10").write_text("api  | first\n")
    path.with_name(path.name + ".2").write_text("gpu0 | second\n")
    path.write_text("api  | third\n")
    return path


def test_old_parts_come_first(file: Path, tmp_path: Path) -> None:
    assert list(read_log(tmp_path, "", follow=False)) == ["api  | first", "gpu0 | second", "api  | third"]
    assert list(read_log(tmp_path, "gpu0", follow=False)) == ["gpu0 | second"]
    file.unlink()
    assert list(read_log(tmp_path, "api", follow=False)) == ["api  | first"], "the file was renamed a moment ago"


def test_a_missing_log_or_process_is_an_error(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no line of 'gpu7'\. It has lines of api, gpu0"):
        list(read_log(tmp_path, "gpu7", follow=False))
    with pytest.raises(CommandError, match="has no log"):
        next(read_log(tmp_path / "elsewhere", "", follow=False))


def test_new_lines_are_followed_across_a_rename(file: Path, tmp_path: Path) -> None:
    steps = _grow_and_rename(file)
    lines = read_log(tmp_path, "api", follow=True, wait=lambda _: next(steps))
    assert [next(lines) for _ in range(5)] == ["api  | first", "api  | third", "api  | fourth", "api  | fifth", "api  | sixth"]


def _grow_and_rename(file: Path) -> Iterator[None]:
    with file.open("a") as stream:
        stream.write("api  | fourth\n")
        stream.flush()
        yield
        stream.write("api  | fifth\n")
    file.rename(file.with_name(file.name + ".1"))
    yield
    file.write_text("api  | sixth\n")
    yield
