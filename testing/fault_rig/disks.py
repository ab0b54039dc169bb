"""Small disks for tests, so that a full disk does not fill that of the machine."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testing.missing_services import missing_service

PIECE = 64 * 1024


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system in memory of this size at ``folder``, which is created. Skips if this user may not mount."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        missing_service("a test disk needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Fill the disk of this folder to the last byte for the duration of the block."""
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
