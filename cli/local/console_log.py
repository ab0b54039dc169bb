"""A combined log of many processes: a coloured prefix per process, and a status line at the bottom.

On a terminal the status line is updated in place; elsewhere it is printed whenever it changes. All lines also go to a file, which is
renamed when it is large. As JSON, each line is an object with the name of its process, and has neither prefix nor colour.
"""

import atexit
import json
import logging
import os
import re
import sys
import threading
import time
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from cli.safe_text import safe_log

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # readable on light and dark backgrounds
ERASE_LINE = "\r\x1b[K"
COLOUR_CODE = re.compile(r"\x1b\[[0-9;]*m")
# Lines that wait for a reader of the output; further ones are dropped and counted.
MAX_WAITING = 10_000
FILE_BYTES, OLD_FILES = 16 * 2**20, 3


class _LogFile(RotatingFileHandler):
    """Loses lines that cannot be written, as on a full disk, without a word."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class ConsoleLog:
    """Writes to ``stream`` in a thread, and stops without an error when the stream is closed.

    A stream that nobody reads, such as a terminal after Ctrl-S, blocks only that thread.
    """

    def __init__(self, stream: TextIO | None = None, *, file: Path | None = None, form: str = "text") -> None:
        self._as_json = form == "json"
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._coloured = self._terminal and not os.environ.get("NO_COLOR")
        self._width = 0
        self._colours: dict[str, int] = {}
        self._status = ""
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._written = True
        self._changed = threading.Condition()
        self._file = _open(file)
        atexit.register(self.flush)
        threading.Thread(target=self._write_lines, name="console", daemon=True).start()

    def announce(self, name: str) -> None:
        """Assign a colour to a process and reserve space for its name."""
        self._width = max(self._width, len(name))
        self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])

    def line(self, name: str, text: str) -> None:
        """Print one line of the process ``name``."""
        if self._as_json:
            self._write_json(name, text)
            return
        prefix = f"{name:<{self._width}} |"
        text = safe_log(text)
        plain = COLOUR_CODE.sub("", text)
        self._write_to_file(f"{prefix} {plain}")
        if self._coloured:
            self._print(f"\x1b[{self._colours.get(name, 37)}m{prefix}\x1b[0m {text}\n")
        else:
            self._print(f"{prefix} {plain}\n")

    def say(self, text: str, *, secret: bool = False) -> None:
        """Print one line of the supervisor; one with a secret does not go to the file."""
        if self._as_json:
            self._write_json("up", text, secret=secret)
            return
        if not secret:
            self._write_to_file(text)
        self._print(f"\x1b[1m{text}\x1b[0m\n" if self._coloured else f"{text}\n")

    def status(self, text: str) -> None:
        """Set the status line; an empty text removes it."""
        if text == self._status:
            return
        self._status = text
        if self._terminal:
            self._print("")
        elif text:
            self._print(f"{json_line('up', text)}\n" if self._as_json else f"{text}\n")

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until everything is written, or for this long if nobody reads it."""
        with self._changed:
            self._changed.wait_for(lambda: self._written, seconds)

    def _print(self, text: str) -> None:
        if self._terminal:
            text = f"{ERASE_LINE}{text}{self._status[: self._columns() - 1]}"
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self._dropped += 1
                return
            self._waiting.append(text)
            self._written = False
            self._changed.notify_all()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80

    def _write_lines(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                text = "".join(self._waiting)
                self._waiting.clear()
                dropped, self._dropped = self._dropped, 0
            if dropped:
                text += f"{dropped} lines were not shown, because nobody read this output; `enginehouse logs` has them.\n"
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # the pipe or the terminal is closed; the processes continue
                self._stream = open(os.devnull, "w")  # noqa: SIM115
                self._terminal = False
            with self._changed:
                self._written = not self._waiting
                self._changed.notify_all()

    def _write_json(self, name: str, text: str, *, secret: bool = False) -> None:
        line = json_line(name, COLOUR_CODE.sub("", text))
        if not secret:
            self._write_to_file(line)
        self._print(f"{line}\n")

    def _write_to_file(self, text: str) -> None:
        if self._file is not None:
            self._file.handle(logging.makeLogRecord({"msg": text}))


def json_line(process: str, text: str) -> str:
    """A process's line as a JSON object with the process name. A line of plain text becomes the object's message."""
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or "message" not in entry:
        now = time.time()
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        entry = {"time": f"{clock}.{int(1000 * (now % 1)):03d}Z", "level": "info", "message": text.rstrip("\n")}
    return json.dumps({"process": process, **entry})


def _open(file: Path | None) -> _LogFile | None:
    if file is None:
        return None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return _LogFile(file, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8", delay=True)
    except OSError:
        return None
