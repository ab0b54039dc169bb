"""Turn file: lets one worker process of a machine do what any of them could do, without asking Redis.

A worker that has ended or is stopped leaves the file untouched, and another takes the next turn.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path


class TurnFile:
    """A file that a process touches when it takes a turn. No other process gets one within ``seconds`` after that."""

    def __init__(self, path: Path, seconds: float, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._seconds = seconds
        self._clock = clock

    def take_turn(self) -> bool:
        """Whether this process has the turn now. Two that ask at the same moment may both have it, and so has each one if the file cannot
        be written."""
        now = self._clock()
        try:
            age = now - self._path.stat().st_mtime
            # One from the future was touched before the clock was set back.
            if 0 <= age < self._seconds:
                return False
        except OSError:
            pass
        self._touch(now)
        return True

    def _touch(self, now: float) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            os.utime(self._path, (now, now))
        except OSError:
            pass  # the disk is full, or the folder belongs to another user
