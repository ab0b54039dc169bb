"""A combined log of many processes: a coloured prefix per process, and a status line at the bottom.

On a terminal the status line is updated in place; elsewhere it is printed whenever it changes.
"""

import os
import re
import sys
from typing import TextIO

from cli.safe_text import safe_log

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)  # readable on light and dark backgrounds
ERASE_LINE = "\r\x1b[K"
COLOUR_CODE = re.compile(r"\x1b\[[0-9;]*m")


class ConsoleLog:
    """Writes to ``stream``, and stops without an error when the stream is closed."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._coloured = self._terminal and not os.environ.get("NO_COLOR")
        self._width = 0
        self._colours: dict[str, int] = {}
        self._status = ""

    def announce(self, name: str) -> None:
        """Assign a colour to a process and reserve space for its name."""
        self._width = max(self._width, len(name))
        self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])

    def line(self, name: str, text: str) -> None:
        """Print one line of the process ``name``."""
        prefix = f"{name:<{self._width}} |"
        if self._coloured:
            prefix = f"\x1b[{self._colours.get(name, 37)}m{prefix}\x1b[0m"
        else:
            text = COLOUR_CODE.sub("", text)
        self._print(f"{prefix} {safe_log(text)}\n")

    def say(self, text: str) -> None:
        """Print one line of the supervisor."""
        self._print(f"\x1b[1m{text}\x1b[0m\n" if self._coloured else f"{text}\n")

    def status(self, text: str) -> None:
        """Set the status line; an empty text removes it."""
        if text == self._status:
            return
        self._status = text
        if self._terminal:
            self._print("")
        elif text:
            self._print(f"{text}\n")

    def _print(self, text: str) -> None:
        try:
            if self._terminal:
                columns = os.get_terminal_size(self._stream.fileno()).columns or 80
                text = f"{ERASE_LINE}{text}{self._status[: columns - 1]}"
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the pipe or the terminal is closed; the processes continue
            self._stream = open(os.devnull, "w")  # noqa: SIM115
            self._terminal = False
