"""``enginehouse logs``: the log file of a stack, whole or as it grows."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from cli.errors import CommandError

POLL_SECONDS = 0.2
# At the beginning of a line, as text or in a JSON object.
_NAME = re.compile(r'([a-z]+[0-9]*) *\||\{"process": "([^"]*)"')
_OLD_FILE = re.compile(r"\.log\.(\d+)$")


def log_file(data_dir: Path) -> Path:
    """The file that has all output of the stack. Older parts are beside it, with a number at the end of their names."""
    return data_dir / "log" / "enginehouse.log"


def read_log(data_dir: Path, process: str, *, follow: bool, wait: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Lines of the log, oldest first: all, or those of one process such as ``gpu0``. With ``follow``, new ones as they come, for ever.

    Raises CommandError if there is no log, or no line of the process when the log ends.
    """
    file = log_file(data_dir)
    old = sorted((path for path in file.parent.glob(f"{file.name}.*") if _OLD_FILE.search(path.name)), key=_age, reverse=True)
    if not file.exists() and not old:
        raise CommandError(
            f"The data folder {data_dir} has no log: start Enginehouse there with `enginehouse up`, or use --data."
        )
    found, names = False, set[str]()
    for line in _lines([*old, file], follow=follow, wait=wait):
        if not process or _process_of(line) == process:
            found = True
            yield line
        elif name := _NAME.match(line):
            names.add(name[1] or name[2])
    if process and not found:
        raise CommandError(
            f"The log has no line of {process!r}. It has lines of {', '.join(sorted(names)) or 'no process'}. "
            "A process without lines may be healthy: `enginehouse status` lists all of them."
        )


def _process_of(line: str) -> str:
    """The process that wrote a line. The line is its name and text, or a JSON object."""
    if line.startswith('{"process": "'):
        return line.split('"', 4)[3]
    return line.split("|", 1)[0].rstrip()


def _age(path: Path) -> int:
    return int(path.suffix[1:])


def _lines(files: list[Path], *, follow: bool, wait: Callable[[float], None]) -> Iterator[str]:
    for path in files[:-1]:
        with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as stream:
            yield from (line.rstrip("\n") for line in stream)
    file = files[-1]
    while True:
        try:
            stream = file.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # renamed a moment ago because it grew too large, or removed
            if not follow:
                return
            wait(POLL_SECONDS)
            continue
        with stream:
            while line := stream.readline():
                yield line.rstrip("\n")
            if not follow:
                return
            while not _was_replaced(file, stream.fileno()) or stream.tell() < os.fstat(stream.fileno()).st_size:
                if line := stream.readline():
                    yield line.rstrip("\n")
                else:
                    wait(POLL_SECONDS)


def _was_replaced(file: Path, descriptor: int) -> bool:
    """Whether the name now belongs to another file, because the log grew too large."""
    try:
        return file.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
