"""Disk check before the stack starts: is there enough space for the data folder?"""

import sys
from pathlib import Path

from cli.errors import CommandError
from shared.disk_space import DiskSpace

# What Redis, Chroma and the log write before the first request.
START_BYTES = 32 * 1024 * 1024


def check_disk_space(data_dir: Path, reserve: int) -> None:
    """Raise CommandError if the stack could not start. Print a warning if it would start and accept nothing."""
    folder = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if missing := DiskSpace(folder, START_BYTES, largest_fraction=1.0).shortage():
        raise CommandError(
            f"The disk of the data folder {data_dir} is full: Enginehouse can start when {missing:,} more bytes are free. "
            "Free space there, or choose another folder with --data."
        )
    if shortage := DiskSpace(folder, reserve).shortage():
        print(
            f"Warning: the disk of the data folder {data_dir} is nearly full. Jobs and uploads are refused until {shortage:,} more bytes "
            "are free; reads, searches and deletions work.",
            file=sys.stderr,
        )
