"""Attempt runner: executes the handler of a claimed job, then settles the attempt in Redis.

Jobs of every kind pass through here, and only here is it decided what an exception means for a job: ``execute`` maps what
the handler did to an ``Ending``, and ``TRANSITIONS`` maps each ending to the one transition that writes it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from shared.disk_space import is_disk_full
from shared.errors import DiskFull, EnginehouseError, InternalError, JobFailure, JobTimeout, RedisUnavailable
from shared.jobs.models import Job, Outcome, Status
from shared.jobs.transitions import Event, JobTransitions
from shared.redis_connection import is_outage
from workers.runtime.attempt import Attempt, AttemptStopped, CheckedHandler, Handler, Handover, Result, StopReason
from workers.runtime.event_publisher import EventPublisher
from workers.runtime.outage import OutageLog, retry_through_outage

logger = logging.getLogger(__name__)


class Ending(Enum):
    """How the execution of a handler ended, before anything is written."""

    COMPLETED = auto()
    HANDED_OVER = auto()
    FAILED = auto()
    FAILED_RETRYABLY = auto()
    INTERRUPTED = auto()
    CANCELLED = auto()
    TIMED_OUT = auto()
    RELEASED = auto()
    LOST = auto()


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What the handler of an attempt did. ``result``, ``handover`` and ``error`` are set for the endings that have one."""

    ending: Ending
    result: Result | None = None
    handover: Handover | None = None
    error: Mapping[str, Any] | None = None


ENDING_OF_STOP: Mapping[StopReason, Ending] = {
    "cancel": Ending.CANCELLED,
    "timeout": Ending.TIMED_OUT,
    "release": Ending.RELEASED,
    "lost": Ending.LOST,
}


@dataclass(frozen=True)
class Transition:
    """How an ending is written, and the outcome of the attempt when Redis answers "ok"; other answers are outcomes themselves."""

    outcome: Outcome
    write: "Callable[[JobTransitions, Attempt, Execution, Event | None], str]"
    ends_stream: bool = False


def _complete(transitions: JobTransitions, attempt: Attempt, execution: Execution, last: Event | None) -> str:
    result = execution.result
    assert result is not None
    return transitions.finish(
        attempt.lease,
        Status.COMPLETED,
        result=result.value,
        service=result.service,
        token_seconds=result.token_seconds,
        usage=attempt.usage,
        messages=result.messages,
        last=last,
    )


def _fail(transitions: JobTransitions, attempt: Attempt, execution: Execution, last: Event | None) -> str:
    return transitions.finish(attempt.lease, Status.FAILED, error=execution.error, usage=attempt.usage, last=last)


def _cancel(transitions: JobTransitions, attempt: Attempt, execution: Execution, last: Event | None) -> str:
    return transitions.finish(attempt.lease, Status.CANCELLED, usage=attempt.usage, last=last)


def _retry_later(transitions: JobTransitions, attempt: Attempt, execution: Execution, last: Event | None) -> str:
    assert execution.error is not None
    return transitions.retry(attempt.lease, attempt.job.retries, execution.error, usage=attempt.usage)


def _release_after_outage(transitions: JobTransitions, attempt: Attempt, execution: Execution, last: Event | None) -> str:
    assert execution.error is not None
    job = attempt.job
    return transitions.release_after_outage(attempt.lease, job.queue, _outages_before(job), execution.error, usage=attempt.usage)


def _outages_before(job: Job) -> int:
    """How many attempts in a row ended in an outage, up to the one that runs now."""
    count = 0
    for earlier in reversed(job.attempts):
        if earlier.number < job.attempt:
            if earlier.outcome is not Outcome.RELEASED or not earlier.error:
                break
            count += 1
    return count


def _release(transitions: JobTransitions, attempt: Attempt, execution: Execution, last: Event | None) -> str:
    return transitions.release(attempt.lease, attempt.job.queue, usage=attempt.usage)


def _hand_over(transitions: JobTransitions, attempt: Attempt, execution: Execution, last: Event | None) -> str:
    assert execution.handover is not None
    handover = execution.handover
    return transitions.hand_over(attempt.lease, handover.queue, handover.context, handover.found, usage=attempt.usage)


# A lost attempt writes nothing: the job belongs to another attempt.
TRANSITIONS: Mapping[Ending, Transition] = {
    Ending.COMPLETED: Transition(Outcome.COMPLETED, _complete, ends_stream=True),
    Ending.FAILED: Transition(Outcome.FAILED, _fail, ends_stream=True),
    Ending.TIMED_OUT: Transition(Outcome.FAILED, _fail, ends_stream=True),
    Ending.CANCELLED: Transition(Outcome.CANCELLED, _cancel, ends_stream=True),
    Ending.FAILED_RETRYABLY: Transition(Outcome.RETRIED, _retry_later),
    Ending.INTERRUPTED: Transition(Outcome.RELEASED, _release_after_outage),
    Ending.RELEASED: Transition(Outcome.RELEASED, _release),
    Ending.HANDED_OVER: Transition(Outcome.HANDED_OVER, _hand_over),
}


class AttemptRunner:
    """Runs attempts with the handlers of one worker. Safe to use from many threads."""

    def __init__(
        self,
        transitions: JobTransitions,
        event_publisher: EventPublisher,
        handlers: Mapping[str, Handler],
        *,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """``sleep`` pauses between two offers of an ending to an unavailable Redis; it returns true when there are to be no more."""
        self._transitions = transitions
        self._event_publisher = event_publisher
        self._handlers = handlers
        self._sleep = sleep

    def run_attempt(self, attempt: Attempt) -> Outcome:
        """Execute the handler and settle the attempt. Raises only if the end of the job could not be written."""
        execution = self.execute(attempt)
        attempt.error_code = str((execution.error or {}).get("code", ""))
        return self.settle(attempt, execution)

    def execute(self, attempt: Attempt) -> Execution:
        """Call the handler of the job's kind, and classify what it returns or raises."""
        job = attempt.job
        try:
            handler = self._handlers.get(job.kind)
            if handler is None:
                raise InternalError(f"The workers of queue {job.queue!r} have no handler for jobs of kind {job.kind!r}.")
            attempt.raise_if_stopped()
            value = _call(handler, attempt)
        except AttemptStopped as stop:
            timeout = JobTimeout("The job did not finish within its timeout.").as_json() if stop.reason == "timeout" else None
            return Execution(ending=ENDING_OF_STOP[stop.reason], error=timeout)
        except Exception as error:  # noqa: BLE001 every job ends, whatever its handler raises
            return self._classify_error(job, error)
        if isinstance(value, Handover):
            return Execution(ending=Ending.HANDED_OVER, handover=value)
        return Execution(ending=Ending.COMPLETED, result=value if isinstance(value, Result) else Result(value=value))

    def release_lease(self, attempt: Attempt) -> None:
        """Return the job of an attempt whose handler has not stopped. Raises RedisError."""
        attempt.released = True
        self._transitions.release(attempt.lease, attempt.job.queue, usage=attempt.usage)

    def _classify_error(self, job: Job, error: Exception) -> Execution:
        outage = _outage_in(error)
        if outage is not None:
            # The job is not at fault, and every handler can be repeated, as after the loss of a worker.
            logger.warning("job %s: it will run again, as a service that it needs is unavailable (%s)", job.id, outage.message)
            return Execution(ending=Ending.INTERRUPTED, error=outage.as_json())
        if isinstance(error, EnginehouseError):
            retryable = isinstance(error, JobFailure) and error.retryable
            return Execution(ending=Ending.FAILED_RETRYABLY if retryable else Ending.FAILED, error=error.as_json())
        logger.error("job %s: the handler of kind %r raised", job.id, job.kind, exc_info=error)
        fault = InternalError(f"The worker failed with {type(error).__name__}. Its log has the details under job {job.id}.")
        return Execution(ending=Ending.FAILED, error=fault.as_json())

    def settle(self, attempt: Attempt, execution: Execution) -> Outcome:
        """Write the ending with its transition, through an outage of Redis if need be."""
        transition = TRANSITIONS.get(execution.ending)
        if transition is None:
            return Outcome.LOST

        def write(last: Event | None) -> str:
            return transition.write(self._transitions, attempt, execution, last)

        def write_end() -> str:
            return self._event_publisher.finish_stream(attempt.events, write) if transition.ends_stream else write(None)

        answer = retry_through_outage(write_end, OutageLog(logger, f"job {attempt.job.id}"), sleep=self._sleep)
        if answer == "lost" and attempt.released:
            return Outcome.RELEASED
        return transition.outcome if answer == "ok" else Outcome(answer)


def _call(handler: Handler, attempt: Attempt) -> Result | Handover | Mapping[str, Any]:
    """Call a handler. If it fails because what it works on was deleted, that is what is raised."""
    try:
        return handler(attempt)
    except AttemptStopped:
        raise
    except Exception as error:
        if isinstance(handler, CheckedHandler) and _outage_in(error) is None:
            handler.check_subject(attempt)
        raise


def _outage_in(error: BaseException) -> EnginehouseError | None:
    """The outage that an error comes from, or None: the error itself, or one that it was raised for."""
    found: BaseException | None = error
    while found is not None:
        if is_outage(found):
            return RedisUnavailable(f"Redis was unavailable while the job ran ({type(found).__name__}). Submit the job again.")
        if is_disk_full(found):
            return DiskFull("The worker's disk was full while the job ran. Submit the job again.")
        if isinstance(found, EnginehouseError):
            return (
                found
                if isinstance(found, (RedisUnavailable, DiskFull)) or (isinstance(found, JobFailure) and found.outage)
                else None
            )
        found = found.__cause__ or found.__context__
    return None
