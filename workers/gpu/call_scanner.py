"""Call scanner: finds calls in JSON while the model still writes them, so that their arguments are sent in pieces.

A call is found once its name and the beginning of its arguments are there. What comes before that, or has another form, is left
to the reader of whole calls.
"""

import json
import re
from collections.abc import Collection

from shared.jobs.deltas import Delta

# Calls as models write them: an object with the name first, alone or in a list, or the name before the arguments.
_OBJECT = re.compile(r'[\s,;\[]*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_NAMED = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)")
# A name that has not come by then is none, and the pattern is not tried again.
MAX_HEAD = 1000
_STRUCTURE = re.compile(r'["\\{}\[\]]')


class _JsonObject:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._in_string = self._is_escaped = False

    def end_in(self, piece: str, start: int) -> int | None:
        """Where the object ends in this piece, or None if it goes on."""
        if self._is_escaped and start < len(piece):
            self._is_escaped = False
            start += 1
        while found := _STRUCTURE.search(piece, start):
            start, mark = found.end(), found[0]
            if self._in_string:
                if mark == "\\":
                    self._is_escaped = start == len(piece)
                    start += 1
                elif mark == '"':
                    self._in_string = False
            elif mark == '"':
                self._in_string = True
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return start
        return None


class CallScanner:
    """Scans what is between two markers, for calls of these tools."""

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self.found = 0
        """Calls so far."""
        self.rest = ""
        """What has come after the last call that was found."""
        self._arguments: _JsonObject | None = None
        self._call: _JsonObject | None = None
        self._is_over = False

    def feed(self, piece: str) -> list[Delta]:
        """Pieces of calls: the first one of each has its ``name``, all have ``arguments``."""
        found: list[Delta] = []
        while piece:
            if self._arguments is not None:
                end = self._arguments.end_in(piece, 0)
                found.append({"arguments": piece[:end]})
                if end is None:
                    break
                self._arguments, piece = None, piece[end:]
            elif self._call is not None:
                end = self._call.end_in(piece, 0)
                if end is None:
                    break
                self._call, piece = None, piece[end:]
            else:
                self.rest += piece
                piece = self._take_head(found)
        return found

    def _take_head(self, found: list[Delta]) -> str:
        """Find the head of a call in what has come, and return the text after it; otherwise keep it all."""
        if self._is_over:
            return ""
        head = _OBJECT.match(self.rest)
        named = None if head or self.found else _NAMED.match(self.rest)
        name = _decode(head[1]) if head else named[1] if named else None
        if name not in self._tools:
            self._is_over = name is not None or len(self.rest) > MAX_HEAD
            return ""
        piece = self.rest[(head or named).end() :]  # type: ignore[union-attr]
        self.rest = ""
        self.found += 1
        self._arguments = _JsonObject()
        # The object around the arguments.
        self._call = _JsonObject(1) if head else None
        self._is_over = head is None
        found.append({"name": name, "arguments": ""})
        return piece


def _decode(text: str) -> str | None:
    try:
        return str(json.loads(text))
    except ValueError:
        return None
