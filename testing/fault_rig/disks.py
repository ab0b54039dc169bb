"""Small disks of a test's own, so that one can be full without filling the machine's."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import missing_service

PIECE = 64 * 1024


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system in memory of this size at ``folder``, which is made. Skips where this user may not mount."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        missing_service("a disk of a test's own needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """No byte more fits onto the disk of this folder meanwhile."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"\0" * PIECE)
    with suppress(OSError), filler.open("ab", buffering=0) as stream:
        while True:
            stream.write(b"\0")
    try:
        yield
    finally:
        filler.unlink()
