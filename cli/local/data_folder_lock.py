"""Lock of a data folder: one stack at a time uses it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.errors import CommandError
from shared.data_folder import open_data_folder


@contextmanager
def data_folder_locked(folder: Path, guardian: int) -> Iterator[None]:
    """Keep other stacks from using the data folder. The lock file holds the process id of the stack's guardian, for their message."""
    try:
        open_data_folder(folder)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise CommandError(
            f"The data folder {folder} cannot be used ({error.strerror}): choose another one with --data."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(_data_folder_in_use(folder)) from None
        lock.truncate(0)
        lock.write(f"{guardian}\n")
        lock.flush()
        yield


def lock_holder(folder: Path) -> int | None:
    """The process id of the guardian of the stack that uses the data folder; None if no stack does."""
    try:
        with (folder / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read())
    except (OSError, ValueError):
        pass
    return None


def _data_folder_in_use(folder: Path) -> str:
    """Which process uses the data folder, and how to stop it."""
    try:
        pid = int((folder / "lock").read_text())
    except (OSError, ValueError):
        process, kill = "", ""
    else:
        process, kill = f" (process {pid})", f" or with `kill {pid}`"
    return (
        f"Another Enginehouse{process} is using the data folder {folder}. If it is already stopping, try again in a few "
        f"seconds. Otherwise stop it with Ctrl-C{kill}, or choose another folder with --data."
    )
