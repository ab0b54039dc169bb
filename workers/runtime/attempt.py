"""Attempt: what a handler gets to work on one claimed job, and what it may return.

A handler reads ``spec`` and ``context``, reports text and progress, and returns a Result or a Handover, or raises.
``attempt_runner`` decides what its outcome means for the job.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from shared.jobs.models import Job
from shared.jobs.transitions import Lease
from shared.jobs.usage import Usage
from shared.work_context import LogLine
from workers.runtime.event_buffer import EventBuffer

# How often deltas are published of a job that no client follows, and of the request of a batch: for an attempt that continues it, and for
# a client that follows it later. Each takes a write to Redis, which hundreds of running jobs would occupy.
UNFOLLOWED_SECONDS, LINE_SECONDS = 0.25, 2.0

StopReason = Literal["cancel", "timeout", "lost", "release"]


class AttemptStopped(Exception):
    """Raised inside a handler whose attempt must not continue; ``reason`` says why."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


@dataclass(frozen=True, kw_only=True)
class Handover:
    """The end of one phase: the job moves to another queue, with ``context`` for the next phase. ``found`` is what its event reports
    clients of a search."""

    queue: str
    context: Mapping[str, Any]
    found: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a completed job. ``service`` is the service it used, in tokens; ``messages`` are added to its session.
    ``token_seconds`` is the time per output token after the first one, None if it was not measured."""

    value: Mapping[str, Any]
    service: int | None = None
    token_seconds: float | None = None
    messages: Sequence[Mapping[str, Any]] = ()


class AttemptHandle(Protocol):
    """The part of an attempt that most handlers use; tests implement it without a worker."""

    @property
    def job(self) -> Job: ...
    @property
    def spec(self) -> Mapping[str, Any]: ...
    @property
    def usage(self) -> Usage: ...
    def report_progress(self, phase: str, done: int, total: int, unit: str) -> None: ...
    def raise_if_stopped(self) -> None: ...
    def on_stop(self, interrupt: Callable[[], None]) -> None: ...


class Attempt:
    """One attempt at a claimed job. ``publish`` is called whenever its event buffer has something to write."""

    def __init__(self, job: Job, publish: Callable[[EventBuffer], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.job = job
        self.stop_requested_at: float | None = None
        self.released = False
        """Whether the job was returned to its queue while the handler had yet to stop."""
        self.error_code = ""
        self.usage = Usage()
        self.lease: Lease = (job.id, job.attempt)
        self.events = EventBuffer(self.lease, on_refused=lambda: self.request_stop("lost"), on_followed=self.note_follower)
        self.lines: list[LogLine] = []
        self._lines_taken = 0
        self._publish = publish
        self._clock = clock
        self._delta_seconds = LINE_SECONDS if job.line_of else 0.0 if job.followed else UNFOLLOWED_SECONDS
        # The first token of a job is published at once. Nobody waits for that of a batch's request.
        self._published_at = clock() if job.line_of else -math.inf
        self._lock = threading.Lock()
        self._stop_reason: StopReason | None = None
        self._interrupt: Callable[[], None] | None = None

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.job.spec

    @property
    def context(self) -> Mapping[str, Any]:
        return self.job.context

    @property
    def is_delta_due(self) -> bool:
        """Whether a delta would be published now."""
        return self._clock() >= self._published_at + self._delta_seconds

    def note_follower(self) -> None:
        """Publish each further delta without delay, because a client follows the job."""
        self._delta_seconds = 0.0

    def send_delta(self, delta: Mapping[str, Any], output: str = "") -> None:
        """Publish the next piece of the answer (see ``shared.jobs.deltas``), with what a later attempt needs to continue after it."""
        self.events.add_delta(delta, output)
        if delta and self.is_delta_due:
            self._published_at = self._clock()
            self._publish(self.events)

    def void_deltas(self) -> None:
        """Tell clients to drop the deltas of earlier attempts, which this one cannot continue."""
        self.events.add_restart()
        self._publish(self.events)

    def report_progress(self, phase: str, done: int, total: int, unit: str) -> None:
        """Publish how far the job is: ``done`` of ``total`` (0 if unknown) of a unit such as ``pages``."""
        self.events.set_progress(phase, done, total, unit)
        self._publish(self.events)

    def take_lines(self) -> list[LogLine]:
        """What was logged since the last call."""
        with self._lock:
            taken = self.lines[self._lines_taken :]
            self._lines_taken += len(taken)
            return taken

    def raise_if_stopped(self) -> None:
        """Raise AttemptStopped if the attempt must not continue. Handlers call this between steps."""
        if self._stop_reason is not None:
            raise AttemptStopped(self._stop_reason)

    def request_stop(self, reason: StopReason) -> None:
        """Make ``raise_if_stopped`` raise, and interrupt a handler that waits. The first reason stays, but "lost" overrides it."""
        with self._lock:
            if self._stop_reason is None or reason == "lost":
                self._stop_reason = reason
            if self.stop_requested_at is None:
                self.stop_requested_at = self._clock()
            interrupt = self._interrupt
        if interrupt is not None:
            interrupt()

    def on_stop(self, interrupt: Callable[[], None]) -> None:
        """Call ``interrupt`` from another thread when a stop is requested, or at once if that has already happened."""
        with self._lock:
            self._interrupt = interrupt
            stopped = self._stop_reason is not None
        if stopped:
            interrupt()


Handler = Callable[[Attempt], Result | Handover | Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class CheckedHandler:
    """A handler, and a check that what its job works on still exists.

    A deletion removes records, files and indexes while an attempt uses them, so the handler may raise anything. The check is made when it
    has failed, and raises what the job ends with if there was a deletion: AttemptStopped, or an EnginehouseError.
    """

    handle: Handler
    check_subject: Callable[[Attempt], None]

    def __call__(self, attempt: Attempt) -> Result | Handover | Mapping[str, Any]:
        return self.handle(attempt)
