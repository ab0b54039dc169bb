"""One attempt at one job, from claim to end. Every kind of job passes through ``run_attempt``.

Bodies do the work: they get the Attempt, return the result (or a HandOver), or raise. What an exception means for the job
is decided here and nowhere else.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from shared.errors import EnginehouseError, InternalError, JobFailure, JobTimeout
from shared.jobs.models import Job, Status
from shared.jobs.transitions import Event, Lease, Lifecycle, TransitionResult
from shared.redis_connection import is_outage
from workers.runtime.event_publisher import EventPublisher

logger = logging.getLogger(__name__)

StopReason = Literal["cancel", "timeout", "lost", "release"]


class AttemptStopped(Exception):
    """The attempt must not go on; ``reason`` says why."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason: StopReason = reason


@dataclass(frozen=True, kw_only=True)
class Handover:
    """This phase is done: the job goes to another queue with what was found out."""

    queue: str
    context: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Result:
    """The job is done. ``service`` is what it used, in tokens; ``messages`` join its session."""

    value: Mapping[str, Any]
    service: int | None = None
    messages: Iterable[Mapping[str, Any]] = ()


class AttemptHandle(Protocol):
    """What a body that goes step by step needs of its attempt, which need not be that of a worker."""

    @property
    def job(self) -> Job: ...
    @property
    def spec(self) -> Mapping[str, Any]: ...
    def report_progress(self, phase: str, done: int, total: int, unit: str) -> None: ...
    def raise_if_stopped(self) -> None: ...


class Attempt:
    """A claimed job in the hands of this worker."""

    def __init__(self, job: Job, event_publisher: EventPublisher) -> None:
        self.job = job
        self.lease: Lease = (job.id, job.attempt)
        self._event_publisher = event_publisher
        self._lock = threading.Lock()
        self._text: list[str] = []
        self._progress: tuple[str, Mapping[str, Any]] | None = None
        self._phase = ""
        self._index = 0
        self._unsent: list[Event] = []
        self._reason: StopReason | None = None
        self._on_stop: Callable[[], None] | None = None

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.job.spec

    @property
    def context(self) -> Mapping[str, Any]:
        return self.job.context

    def send_text(self, text: str) -> None:
        """Tell the client the next piece of the answer."""
        with self._lock:
            self._text.append(text)
        self._event_publisher.put(self)

    def report_progress(self, phase: str, done: int, total: int, unit: str) -> None:
        """Tell how far the job is: ``done`` of ``total`` (0 when unknown) of a unit such as ``pages``."""
        with self._lock:
            self._progress = (phase, {"phase": phase, "done": done, "total": total, "unit": unit})
        self._event_publisher.put(self)

    def raise_if_stopped(self) -> None:
        """Raise Stopped if the job must not go on. To be called between steps of work."""
        if self._reason is not None:
            raise AttemptStopped(self._reason)

    def request_stop(self, reason: StopReason) -> None:
        """Make ``check`` raise, and interrupt a body that waits. The first reason stays, except that a loss overrides."""
        with self._lock:
            if self._reason is None or reason == "lost":
                self._reason = reason
            interrupt = self._on_stop
        if interrupt is not None:
            interrupt()

    def on_stop(self, interrupt: Callable[[], None]) -> None:
        """Call ``interrupt`` when the attempt is to stop (from another thread), at once if that was earlier."""
        with self._lock:
            self._on_stop = interrupt
            already = self._reason is not None
        if already:
            interrupt()

    def unsent(self) -> list[Event]:
        """The events not yet written, the newly gathered ones among them. Called by the outbox, which holds ``writing``."""
        with self._lock:
            if self._progress:
                phase, data = self._progress
                self._unsent.append(self._event("progress", data, phase))
                self._progress = None
            if self._text:
                self._unsent.append(self._event("delta", {"text": "".join(self._text)}, "generating"))
                self._text.clear()
            return list(self._unsent)

    def sent(self, event: Event) -> None:
        """An event is on the stream, or was refused for good."""
        with self._lock:
            self._unsent = [other for other in self._unsent if other.index > event.index]

    def _event(self, kind: Literal["delta", "progress"], data: Mapping[str, Any], phase: str) -> Event:
        self._index += 1
        return Event(job=self.job.id, attempt=self.job.attempt, index=self._index, type=kind, data=data, phase=phase)


Handler = Callable[[Attempt], Result | Handover | Mapping[str, Any]]


def run_attempt(
    lifecycle: Lifecycle,
    event_publisher: EventPublisher,
    attempt: Attempt,
    handlers: Mapping[str, Handler],
    outage_seconds: float = 600.0,
) -> str:
    """Run the body of a claimed job and end the attempt in one of the closed set of outcomes, whose name is returned.

    ``patience_seconds``: how long the end of a job is offered to a Redis that is away, before the lease is left to lapse.
    """

    def insist(move: Callable[[], str]) -> str:
        deadline = time.monotonic() + outage_seconds
        pause = 0.1
        while True:
            try:
                return move()
            except Exception as error:
                if not is_outage(error) or time.monotonic() > deadline:
                    raise
                logger.warning("job %s: Redis is away (%s); its end is offered again", attempt.job.id, error)
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def end(status: Literal[Status.COMPLETED, Status.FAILED, Status.CANCELLED], **what: Any) -> str:
        def move() -> TransitionResult:
            with event_publisher.writing:
                # Events that were refused or delayed go first; the newest delta travels with the end itself.
                events = attempt.unsent()
                last = events.pop() if events and events[-1].type == "delta" else None
                lifecycle.append_events(events)
                return lifecycle.finish(attempt.lease, status, last=last, **what)

        return status.value if insist(move) == "ok" else "lost"

    def fail(error: EnginehouseError) -> str:
        if isinstance(error, JobFailure) and error.retryable:
            return {"ok": "retried"}.get(
                word := insist(lambda: lifecycle.retry(attempt.lease, attempt.job.retries, error.as_json())), word
            )
        return end(Status.FAILED, error=error.as_json())

    def stopped(reason: StopReason) -> str:
        if reason == "cancel":
            return end(Status.CANCELLED)
        if reason == "timeout":
            return end(Status.FAILED, error=JobTimeout("the job did not end within its timeout").as_json())
        if reason == "release":
            return "released" if insist(lambda: lifecycle.release(attempt.lease, attempt.job.queue)) == "ok" else "lost"
        return "lost"

    try:
        handler = handlers.get(attempt.job.kind)
        if handler is None:
            raise InternalError(f"no worker of queue {attempt.job.queue} knows jobs of kind {attempt.job.kind!r}")
        attempt.raise_if_stopped()
        outcome = handler(attempt)
    except AttemptStopped as stop:
        return stopped(stop.reason)
    except EnginehouseError as error:
        return fail(error)
    except Exception as error:
        if is_outage(error):
            logger.warning("job %s: Redis went away under it (%s)", attempt.job.id, error)
        else:
            logger.exception("job %s: its body raised", attempt.job.id)
        return end(
            Status.FAILED,
            error=InternalError(f"the worker met a fault of its own ({type(error).__name__}); its log tells more").as_json(),
        )
    if isinstance(outcome, Handover):
        handed = outcome
        return (
            "handed_over" if insist(lambda: lifecycle.hand_over(attempt.lease, handed.queue, handed.context)) == "ok" else "lost"
        )
    result = outcome if isinstance(outcome, Result) else Result(value=outcome)
    return end(Status.COMPLETED, result=result.value, service=result.service, messages=tuple(result.messages))
