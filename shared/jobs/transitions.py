"""Job transitions. Each is one Lua script; the script's header in ``lua/`` documents its guarantees.

A transition that makes jobs claimable writes the records first and then sends wake-ups. Maintenance replaces lost wake-ups.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from shared.jobs.models import Job, Status, from_record
from shared.jobs.scripts import JobScripts
from shared.jobs.serialization import to_json
from shared.jobs.usage import Usage
from shared.jobs.wakeups import Wake, send_wakeups
from shared.lua_scripts import Clock
from shared.settings import Settings
from shared.work_context import LogLine

Lease = tuple[str, int]  # job id, attempt number

# Whether a write by an attempt took effect. "lost" means that the attempt is no longer the current one.
TransitionResult = Literal["ok", "lost"]
# The same for an event. "followed" means that it was written, and that a client follows the job.
EventResult = Literal["ok", "followed", "lost"]
# The answer to the renewal of a lease. "settled" means that the attempt itself has ended, or handed over, its job.
Renewal = Literal["ok", "cancel", "timeout", "settled", "lost"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event that a running attempt publishes. ``index`` numbers the events of the attempt from 1. ``output`` is kept for an attempt
    that continues after this delta."""

    job: str
    attempt: int
    index: int
    type: Literal["delta", "progress", "restart"]
    data: Mapping[str, Any]
    phase: str = ""
    output: str = ""


class JobTransitions:
    """Claims, moves and ends jobs. Safe to use from many threads.

    ``clock`` returns Unix milliseconds and is for tests; in production the scripts use the clock of Redis.
    """

    def __init__(self, client: redis.Redis, settings: Settings, wake: Wake, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._wake = wake
        self._scripts = JobScripts(client, clock=clock)

    def claim(self, queue: str, worker: str, token: str) -> Job | None:
        """Claim the next job of a queue, under a lease, for this worker. Returns None if no job is waiting."""
        job = self.claim_for_slot(queue, worker, token, slots=1, reserved=0)
        return None if isinstance(job, str) else job

    def claim_for_slot(
        self, queue: str, worker: str, token: str, *, slots: int, reserved: int, retried: bool = False
    ) -> Job | Literal["held_back", "drained"] | None:
        """Claim the next job of a queue, under a lease, for this worker, which runs up to ``slots`` jobs at once.

        Returns None if no job is waiting. If there are several owners, ``reserved`` of the slots are for owners of whom the worker
        runs nothing: "held_back" means that none of those waits. "drained" means that an operator drains this worker. ``retried`` means
        that an earlier call with this token may have claimed a job although its reply was lost.
        """
        record, queues, held_back = self._scripts.claim(
            queue=queue,
            worker=worker,
            token=token,
            retried=int(retried),
            slots=slots,
            reserved=reserved,
            lease_ms=int(self._settings.lease_seconds * 1000),
            running_limit=self._settings.max_running_jobs,
            user_running_limit=self._settings.max_end_user_running_jobs,
        )
        send_wakeups(self._wake, queues)
        if held_back in ("held_back", "drained"):
            return held_back  # type: ignore[no-any-return]
        return from_record(_pairs(record)) if record else None

    def renew(self, worker: str, leases: Sequence[Lease]) -> list[Renewal]:
        """Renew leases; return one result per lease (see ``renew.lua``)."""
        if not leases:
            return []
        results: list[Renewal] = self._scripts.renew(
            lease_ms=int(self._settings.lease_seconds * 1000),
            leases=[{"id": job, "attempt": attempt} for job, attempt in leases],
        )
        return results

    def append_events(self, events: Sequence[Event]) -> list[EventResult]:
        """Append events to the streams of their jobs in one call; return one result per event."""
        if not events:
            return []
        results: list[EventResult] = self._scripts.append(
            events=[
                {
                    "job": event.job,
                    "attempt": event.attempt,
                    "index": event.index,
                    "kind": event.type,
                    "data": to_json(event.data),
                    "phase": event.phase,
                    "output": event.output,
                }
                for event in events
            ]
        )
        return results

    def write_log(self, worker: str, lines: Iterable[tuple[Lease, LogLine]]) -> None:
        """Keep what was logged during attempts with their jobs, in one call."""
        rows: list[dict[str, str]] = [
            {
                "job": job,
                "line": to_json(
                    {"at": line.at, "level": line.level, "message": line.message, "attempt": attempt, "worker": worker}
                ),
            }
            for (job, attempt), line in lines
        ]
        self._scripts.write_log(lines=rows)

    def finish(
        self,
        lease: Lease,
        status: Literal[Status.COMPLETED, Status.FAILED, Status.CANCELLED],
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        service: int | None = None,
        token_seconds: float | None = None,
        usage: Usage | None = None,
        last: Event | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
    ) -> TransitionResult:
        """End a job: write its last delta, status, result, usage and session messages atomically. ``service`` is what it counts for in the
        fair share, in tokens, ``token_seconds`` the time per output token after the first one; ``usage`` is this attempt's."""
        outcome: TransitionResult
        outcome, queues = self._scripts.finish(
            id=lease[0],
            attempt=lease[1],
            status=status.value,
            result=to_json(result) if result is not None else "",
            error=to_json(error) if error is not None else "",
            code=str(error["code"]) if error is not None else "",
            service=service,
            token_us=None if token_seconds is None else round(token_seconds * 1e6),
            usage=_usage_text(usage),
            index=last.index if last else 0,
            delta=to_json(last.data) if last else "",
            messages=[to_json(message) for message in messages],
        )
        send_wakeups(self._wake, queues)
        return outcome

    def hand_over(
        self,
        lease: Lease,
        queue: str,
        context: Mapping[str, Any],
        found: Mapping[str, Any] | None = None,
        *,
        usage: Usage | None = None,
    ) -> TransitionResult:
        """Move a job to the queue of its next phase, with ``context`` from this phase. ``found`` is what the event says of a search."""
        said = to_json(found) if found is not None else ""
        outcome = self._hand_over(lease, "handed_over", queue, context=to_json(context), found=said, usage=usage)
        assert outcome != "failed"
        return outcome

    def release(self, lease: Lease, queue: str, *, usage: Usage | None = None) -> TransitionResult:
        """Requeue an unfinished job because its worker is stopping. This does not count as a lost attempt or a retry."""
        outcome = self._hand_over(lease, "released", queue, usage=usage)
        assert outcome != "failed"
        return outcome

    def release_after_outage(
        self, lease: Lease, queue: str, outages: int, error: Mapping[str, Any], *, usage: Usage | None = None
    ) -> Literal["ok", "failed", "lost"]:
        """Requeue an unfinished job because a service that it needs is away, after 1, 2, 4 … up to 30 seconds plus up to 50% jitter.

        This counts as neither a lost attempt nor a retry. ``outages`` attempts before this one ended in the same way. The job fails
        with ``error`` once that has gone on for as long as a job may wait in a queue.
        """
        delay_ms = int(min(1000 * 2 ** min(outages, 5), 30_000) * random.uniform(1, 1.5))
        return self._hand_over(lease, "released", queue, delay_ms=delay_ms, error=error, usage=usage)

    def _hand_over(
        self,
        lease: Lease,
        outcome: str,
        queue: str,
        *,
        context: str = "",
        found: str = "",
        delay_ms: int = 0,
        error: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
    ) -> Literal["ok", "failed", "lost"]:
        result: Literal["ok", "failed", "lost"]
        result, queues = self._scripts.hand_over(
            id=lease[0],
            attempt=lease[1],
            outcome=outcome,
            delay_ms=delay_ms,
            error=to_json(error) if error is not None else "",
            code=str(error["code"]) if error is not None else "",
            queue=queue,
            context=context,
            found=found,
            usage=_usage_text(usage),
        )
        send_wakeups(self._wake, queues)
        return result

    def retry(
        self, lease: Lease, retries: int, error: Mapping[str, Any], *, usage: Usage | None = None
    ) -> Literal["ok", "failed", "lost"]:
        """Retry a job later after a transient error: after 1, 4, 16 … seconds plus up to 50% jitter."""
        delay_ms = int(min(1000 * 4**retries, 60_000) * random.uniform(1, 1.5))
        result: Literal["ok", "failed", "lost"]
        result, queues = self._scripts.retry(
            id=lease[0],
            attempt=lease[1],
            delay_ms=delay_ms,
            error=to_json(error),
            code=str(error["code"]),
            usage=_usage_text(usage),
        )
        send_wakeups(self._wake, queues)
        return result

    def cancel(self, job: str, owner: str) -> tuple[Literal["cancelled", "requested", "ended", "missing"], str]:
        """Request cancellation of a job; return the outcome of the request and the job's status."""
        outcome, status, queues = self._scripts.cancel(id=job, owner=owner)
        send_wakeups(self._wake, queues)
        return outcome, status

    def delete(self, job: str, owner: str) -> str:
        """Delete an ended job. Returns 'deleted', 'missing', or the status of a job that has not ended."""
        result: str = self._scripts.delete(id=job, owner=owner)
        return result

    def remove_dead_letter(self, job: str) -> bool:
        """Remove a job from the dead letters, but keep its record. Returns whether it was there."""
        return bool(self._scripts.remove_dead_letter(id=job))


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _usage_text(usage: Usage | None) -> str:
    return "" if usage is None else usage.as_text()
