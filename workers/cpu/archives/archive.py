"""Archive members, unpacked in a child process so that a hostile archive cannot harm the worker.

A member's name is only data: nothing is ever written to a path that comes from the archive.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.errors import DocumentRejected
from workers.cpu.sandbox.child_process import ChildProcess, ChildProcesses

MAX_LINE_BYTES = 1024 * 1024
MAX_BLOCK_BYTES = 1024 * 1024


class MemberSkipped(Exception):
    """A member that is skipped; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Limits on an archive: seconds without output, memory in bytes, number of members, bytes of one member and of all, and
    the ratio of unpacked to packed size."""

    seconds: float
    memory_bytes: int
    max_members: int
    max_member_bytes: int
    max_bytes: int
    max_ratio: int


class MemberBytes:
    """Readable stream of one member. ``read`` raises MemberSkipped, also midway, when the child skips the member."""

    def __init__(self, messages: "_Messages") -> None:
        self._messages = messages
        self._buffer = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._buffer and not self._ended:
            match self._messages.read_message():
                case {"block": int(length)} if 0 < length <= MAX_BLOCK_BYTES:
                    self._buffer = self._messages.read_exactly(length)
                case {"done": int()}:
                    self._ended = True
                case {"skipped": int(), "reason": str(reason)}:
                    self._ended = True
                    raise MemberSkipped(reason)
                case message:
                    raise _rejection(message)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def drain(self) -> None:
        with suppress(MemberSkipped):
            while self.read(MAX_BLOCK_BYTES):
                pass


def unpack_members(
    path: Path,
    archive_format: str,
    limits: ArchiveLimits,
    password: str,
    on_member: Callable[[int, str, MemberBytes], None],
    children: ChildProcesses | None = None,
) -> None:
    """Call ``on_member(number, name, bytes)`` for each member of a ``zip`` or ``tar``. The callback may raise, and need not
    read all bytes. Another thread may kill ``children``.

    Raises DocumentRejected (``too_large``, ``encrypted`` or ``failed``).
    """
    request: dict[str, Any] = {"format": archive_format, "password": password, "size": path.stat().st_size}
    # The byte limits bound the total time. The parent's clock bounds the time without output.
    request |= {**asdict(limits), "seconds": max(limits.seconds, 3600.0)}
    with (children or ChildProcesses()).start("workers.cpu.archives.unpack_child", path, request) as child:
        messages = _Messages(child, limits.seconds)
        try:
            number = 0
            while True:
                match messages.read_message():
                    case {"member": int(index), "name": str(name)} if index == number < limits.max_members:
                        member = MemberBytes(messages)
                        on_member(number, name, member)
                        member.drain()
                        number += 1
                    case {"end": "read"}:
                        return
                    case message:
                        raise _rejection(message)
        except EOFError:
            raise _rejection(None) from None
        finally:
            messages.stop_clock()


def _rejection(message: object) -> DocumentRejected:
    match message:
        case {"end": "too_large" | "encrypted" as code, "reason": str(reason)}:
            return DocumentRejected(reason, code=code)
        case {"end": "unreadable", "reason": str(reason)}:
            return DocumentRejected(f"The archive could not be unpacked: {reason}.", code="failed")
    return DocumentRejected(
        "The archive could not be unpacked: the process that opened it crashed or wrote invalid output.", code="failed"
    )


class _Messages:
    """Output of a child process. A child that is silent for too long is killed."""

    def __init__(self, child: ChildProcess, seconds: float) -> None:
        self._child = child
        self._seconds = seconds
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="unpack clock", daemon=True).start()

    def read_message(self) -> object:
        with self._clock():
            return self._child.read_message(MAX_LINE_BYTES)

    def read_exactly(self, length: int) -> bytes:
        with self._clock():
            return self._child.read_exactly(length)

    def stop_clock(self) -> None:
        self._closed.set()

    @contextmanager
    def _clock(self) -> Iterator[None]:
        self._waiting_since = time.monotonic()
        yield
        self._waiting_since = None

    def _watch(self) -> None:
        while not self._closed.wait(0.5):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._seconds:
                self._child.kill()
