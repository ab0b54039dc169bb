"""Event buffer: the events of one attempt that are not on its stream yet.

The buffer merges what arrives between two writes (deltas are joined, of progress only the newest counts) and numbers the
events. An event keeps its number until it is written, so a write can be repeated after an outage without doubling it.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from shared.jobs.deltas import Delta, merge_deltas
from shared.jobs.transitions import Event, Lease


class EventBuffer:
    """Gathers the deltas and progress of one attempt. Safe to use from many threads.

    ``on_refused`` is called when Redis refuses an event because the attempt no longer owns the job, ``on_followed`` after each write while
    a client follows the job. ``write_lock`` is held while the buffer's events are being written, so that the end of a job cannot overtake
    its events.
    """

    def __init__(
        self, lease: Lease, on_refused: Callable[[], None] = lambda: None, on_followed: Callable[[], None] = lambda: None
    ) -> None:
        self.lease = lease
        self.on_refused = on_refused
        self.on_followed = on_followed
        self.write_lock = threading.Lock()
        self._lock = threading.Lock()
        self._delta: Delta = {}
        self._output: list[str] = []
        self._progress: tuple[str, Mapping[str, Any]] | None = None
        self._events: list[Event] = []
        self._last_index = 0
        self._has_delta = False

    @property
    def has_first_delta(self) -> bool:
        """Whether the first delta of the attempt is waiting to be written."""
        with self._lock:
            return bool(self._delta) and not self._has_delta

    def add_delta(self, delta: Mapping[str, Any], output: str = "") -> None:
        """Append to the next delta event, and to what a later attempt needs to continue after it. Output alone makes no event."""
        with self._lock:
            merge_deltas(self._delta, delta)
            if output:
                self._output.append(output)

    def add_restart(self) -> None:
        """Add an event that voids all deltas before it."""
        with self._lock:
            self._append_event("restart", {"attempt": self.lease[1]})

    def set_progress(self, phase: str, done: int, total: int, unit: str) -> None:
        """Replace the progress that the next progress event reports."""
        with self._lock:
            self._progress = (phase, {"phase": phase, "done": done, "total": total, "unit": unit})

    def unwritten(self) -> list[Event]:
        """All events that are not on the stream yet, oldest first. What is added later goes into a new event."""
        with self._lock:
            if self._progress is not None:
                phase, data = self._progress
                self._append_event("progress", data, phase)
                self._progress = None
            if self._delta:
                self._append_event("delta", self._delta, "generating", "".join(self._output))
                self._delta = {}
                self._output.clear()
                self._has_delta = True
            return list(self._events)

    def drop_through(self, index: int) -> None:
        """Forget the events up to this index: they are on the stream, or were refused for good."""
        with self._lock:
            self._events = [event for event in self._events if event.index > index]

    def forget_callbacks(self) -> None:
        """Call nobody any more, because the attempt has ended.

        An attempt and its buffer refer to each other. Without this, all that belongs to an ended job would stay until a garbage collection, and
        one that finds a thousand jobs stops the threads of a busy worker for a tenth of a second.
        """
        self.on_refused = self.on_followed = _do_nothing

    def _append_event(
        self, kind: Literal["delta", "progress", "restart"], data: Mapping[str, Any], phase: str = "", output: str = ""
    ) -> None:
        self._last_index += 1
        job, attempt = self.lease
        event = Event(job=job, attempt=attempt, index=self._last_index, type=kind, data=data, phase=phase, output=output)
        self._events.append(event)


def _do_nothing() -> None:
    """Replaces a callback."""
