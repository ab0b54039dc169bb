"""The reserve of free space, and which errors a full disk causes."""

import errno
import os
from pathlib import Path

import pytest

from shared.disk_space import DiskSpace, is_disk_full


def test_what_would_use_the_reserve_is_refused(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    space = DiskSpace(tmp_path, 1)
    assert space.shortage() == 0
    assert space.shortage(free // 2) == 0
    assert free // 2 < space.shortage(2 * free) < 2 * free


def test_without_a_reserve_nothing_is_refused(tmp_path: Path) -> None:
    assert DiskSpace(tmp_path, 0).shortage(2**60) == 0


def test_a_missing_folder_is_left_to_the_first_write(tmp_path: Path) -> None:
    assert DiskSpace(tmp_path / "missing", 2**30).shortage(2**40) == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EACCES, "denied"), False),
        (ValueError("no"), False),
    ],
)
def test_errors_of_a_full_disk_are_recognised(error: Exception, expected: bool) -> None:
    assert is_disk_full(error) is expected
