"""The members of an archive, out of a child process that opens it; whatever that does, the parent lives.

Knows nothing of documents or jobs. Names are data; nothing is unpacked to a path of the archive's own.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import DocumentRejected
from shared.packaged_files import CODE_ROOT

LONGEST_LINE = 1024 * 1024
LARGEST_BLOCK = 1024 * 1024


class Skipped(Exception):
    """A member that is left out; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """What an archive may take: seconds of silence, memory in bytes, members, bytes of one member and of all, and how many
    times its own size it may unpack to."""

    seconds: float
    memory_bytes: int
    max_members: int
    max_member_bytes: int
    max_bytes: int
    max_ratio: int


class MemberBytes:
    """The bytes of one member, as the child writes them. Raises Skipped in the middle when the child gives it up."""

    def __init__(self, messages: "_Messages") -> None:
        self._messages = messages
        self._kept = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._kept and not self._ended:
            match self._messages.line():
                case {"block": int(length)} if 0 < length <= LARGEST_BLOCK:
                    self._kept = self._messages.exactly(length)
                case {"done": int()}:
                    self._ended = True
                case {"skipped": int(), "reason": str(reason)}:
                    self._ended = True
                    raise Skipped(reason)
                case message:
                    raise _end(message)
        given, self._kept = self._kept[:size], self._kept[size:]
        return given

    def drain(self) -> None:
        with suppress(Skipped):
            while self.read(LARGEST_BLOCK):
                pass


def unpack_members(
    path: Path, kind: str, limits: ArchiveLimits, password: str, on_member: Callable[[int, str, MemberBytes], None]
) -> None:
    """Hand each member to ``on_member(number, name, bytes)``; what it leaves unread is passed over. It may raise.

    Raises DocumentRejected, ``too_large``, ``encrypted`` or ``failed``.
    """
    order: dict[str, Any] = {"path": str(path.resolve()), "kind": kind, "password": password, "size": path.stat().st_size}
    order |= {name: getattr(limits, name) for name in limits.__dataclass_fields__}
    # How long it may take in all is bounded by the bytes; how long it may be silent, by the clock here.
    order["seconds"] = max(limits.seconds, 3600.0)
    child = subprocess.Popen(
        [sys.executable, "-B", "-m", "workers.cpu.archives.unpack_child"],
        cwd=CODE_ROOT,
        env={},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    messages = _Messages(child, limits.seconds)
    try:
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.close()
        number = 0
        while True:
            match messages.line():
                case {"member": int(told), "name": str(name)} if told == number < limits.max_members:
                    member = MemberBytes(messages)
                    on_member(number, name, member)
                    member.drain()
                    number += 1
                case {"end": "read"}:
                    return
                case message:
                    raise _end(message)
    finally:
        messages.close()
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _end(message: object) -> DocumentRejected:
    match message:
        case {"end": "too_large" | "encrypted" as code, "reason": str(reason)}:
            return DocumentRejected(reason, code=code)
        case {"end": "unreadable", "reason": str(reason)}:
            return DocumentRejected(f"It could not be unpacked. {reason}.", code="failed")
    return DocumentRejected("It could not be unpacked: the process that opened it died or wrote nonsense.", code="failed")


class _Messages:
    """What a child writes. A child that is waited for in vain is killed."""

    def __init__(self, child: "subprocess.Popen[bytes]", seconds: float) -> None:
        assert child.stdout is not None
        self._child = child
        self._stream = child.stdout
        self._seconds = seconds
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="unpack clock", daemon=True).start()

    def line(self) -> object:
        self._waiting_since = time.monotonic()
        line = self._stream.readline(LONGEST_LINE)
        self._waiting_since = None
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return None

    def exactly(self, length: int) -> bytes:
        self._waiting_since = time.monotonic()
        data = self._stream.read(length)
        self._waiting_since = None
        if len(data) < length:
            raise _end(None)
        return data

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(0.5):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._seconds:
                self._child.kill()
