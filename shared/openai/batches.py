"""Request batches of ``/v1/batches``: jobs that run the requests of a file, each as a job of its own, and write the answers to files.

A request batch is a job of kind ``request_batch``. Its state beyond the job's record is the hash ``eh:job:<id>:requests``, which only its
current attempt changes: input_file, endpoint, window, deadline (Unix milliseconds), output_seconds, phase (one of ``PHASES``),
in_progress_at, finalizing_at, model, total, completed, failed, the tokens of ``USAGE``, output_size, error_size and part (what is
written, see ``workers.io.request_batches.output``), output_file, error_file, outcome (``completed`` or ``expired``) and errors (JSON).
The batch of native uploads, a job that counts other jobs, is another thing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from shared.errors import NotFound
from shared.ids import JOB, derived_id, is_id
from shared.jobs.models import Job, Status, from_record
from shared.jobs.queries import read_job
from shared.jobs.queue_names import REQUEST_BATCH_QUEUE
from shared.jobs.submission import Submission
from shared.openai.files import StoredFile
from shared.redis_connection import PREFIX, redis_time_ms
from shared.redis_lists import list_page
from shared.rights import Rights

REQUEST_BATCH = "request_batch"
PREFIX_OF_ID = "batch"
PHASES = ("validating", "in_progress", "finalizing", "ended")
USAGE = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
# Jobs of lines run after those that somebody waits for, and never in the slots that workers reserve.
LINE_PRIORITY = 8


@dataclass(frozen=True, kw_only=True)
class RequestBatch:
    """A request batch: its job, and its state."""

    job: Job
    state: Mapping[str, str]

    @property
    def id(self) -> str:
        """The id of its job."""
        return self.job.id

    @property
    def status(self) -> str:
        """The status in the words of OpenAI's API."""
        if self.job.status is Status.COMPLETED:
            return self.state.get("outcome", "completed")
        if self.job.status.final:
            return self.job.status.value
        phase = self.state.get("phase", PHASES[0])
        return "cancelling" if self.job.cancel_requested_at and phase != "finalizing" else phase.replace("ended", "finalizing")

    def counts(self) -> dict[str, int]:
        """How many requests there are, and how many of them have ended in which way."""
        return {name: int(self.state.get(name, 0)) for name in ("total", "completed", "failed")}

    def estimated_end_ms(self, now_ms: int) -> int | None:
        """When the last request will end if the rest takes as long for each as those so far; None before the first has ended."""
        counts, started = self.counts(), self.state.get("in_progress_at")
        done = counts["completed"] + counts["failed"]
        if self.job.status.final or not started or not done:
            return None
        return now_ms + (now_ms - int(started)) * (counts["total"] - done) // done

    def as_json(self, now_ms: int) -> dict[str, Any]:
        """The batch as OpenAI describes one, with ``estimated_end_at``, ``not_before`` and ``job_id`` besides."""
        job, state, status = self.job, self.state, self.status
        ended = seconds(job.ended_at)
        usage = {name: int(state.get(name, 0)) for name in USAGE}
        return {
            "id": public_id(job.id),
            "object": "batch",
            "endpoint": state["endpoint"],
            "model": state.get("model") or None,
            "errors": self._errors(),
            "input_file_id": state["input_file"],
            "completion_window": state["window"],
            "status": status,
            "output_file_id": state.get("output_file") or None,
            "error_file_id": state.get("error_file") or None,
            "created_at": seconds(job.created_at),
            "in_progress_at": seconds(state.get("in_progress_at")),
            "expires_at": seconds(state["deadline"]),
            "finalizing_at": seconds(state.get("finalizing_at")),
            "completed_at": ended if status == "completed" else None,
            "failed_at": ended if status == "failed" else None,
            "expired_at": ended if status == "expired" else None,
            "cancelling_at": seconds(job.cancel_requested_at),
            "cancelled_at": ended if status == "cancelled" else None,
            "request_counts": self.counts(),
            "usage": {
                "input_tokens": usage["input_tokens"],
                "input_tokens_details": {"cached_tokens": usage["cached_tokens"]},
                "output_tokens": usage["output_tokens"],
                "output_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
                "total_tokens": usage["input_tokens"] + usage["output_tokens"],
            },
            "metadata": dict(job.metadata) or None,
            "estimated_end_at": seconds(self.estimated_end_ms(now_ms)),
            "not_before": seconds(job.not_before) if job.status is Status.QUEUED and not job.attempt else None,
            "job_id": job.id,
        }

    def _errors(self) -> dict[str, Any] | None:
        if self.state.get("errors"):
            return {"object": "list", "data": json.loads(self.state["errors"])}
        if self.job.status is not Status.FAILED or self.job.error is None:
            return None
        error = {"code": self.job.error["code"], "line": None, "message": self.job.error["message"], "param": None}
        return {"object": "list", "data": [error]}


class RequestBatches:
    """Reads request batches. Safe to use from many threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def now_ms(self) -> int:
        return redis_time_ms(self._redis)

    def get(self, id: str, owner: str) -> RequestBatch:
        """The owner's request batch with this id of ``/v1``. Raises NotFound."""
        job_id = job_of(id)
        job = read_job(self._redis, job_id) if job_id else None
        if job is None or job.owner != owner or job.kind != REQUEST_BATCH:
            raise NotFound(f"No batch found with id '{id[:80]}'.", code="batch_not_found", param="batch_id")
        return RequestBatch(job=job, state=self.state(job.id))

    def state(self, job_id: str) -> dict[str, str]:
        """The state of a request batch."""
        state: dict[str, str] = self._redis.hgetall(state_key(job_id))
        return state

    def written(self, job_id: str, total: int) -> Sequence[int]:
        """For each 32 requests, in order, the bits of those whose outcome is in the output; the first is the highest."""
        bits = self._redis.bitfield(written_key(job_id))
        for start in range(0, total, 32):
            bits.get("u32", start)
        words: list[int] = bits.execute() if total else []
        return words

    def list_batches(self, owner: str, *, limit: int, after: str | None) -> tuple[list[RequestBatch], bool]:
        """A page of the owner's request batches, newest first, and whether more follow."""

        def read(ids: list[str]) -> list[RequestBatch]:
            with self._redis.pipeline(transaction=False) as pipeline:
                for id in ids:
                    pipeline.hgetall(f"{PREFIX}job:{id}").hgetall(state_key(id))
                records = pipeline.execute()
            pairs = zip(records[::2], records[1::2], strict=True)
            return [RequestBatch(job=from_record(record), state=state) for record, state in pairs if record and state]

        page, cursor = list_page(self._redis, f"{PREFIX}owner:{owner}:request_batches", read, limit=limit, after=after)
        return page, cursor is not None


def batch_submission(
    file: StoredFile,
    *,
    owner: str,
    endpoint: str,
    window: str,
    deadline_ms: int,
    window_seconds: int,
    wait_ms: int,
    output_seconds: int,
    rights: Rights,
    concurrency: Mapping[str, Any],
) -> Submission:
    """The job of a request batch on this input file, which starts after ``wait_ms``. Its lines may use what ``rights`` allow, as they
    are now. Those without a concurrency key of their own have the fields ``concurrency``."""
    return Submission(
        kind=REQUEST_BATCH,
        queue=REQUEST_BATCH_QUEUE,
        spec={
            "name": file.filename,
            "input_file": file.id,
            "endpoint": endpoint,
            "rights": rights.as_json(),
            "concurrency": dict(concurrency),
        },
        owner=owner,
        wait_ms=wait_ms,
        expires_ms=wait_ms + 1000 * window_seconds,
        requests={
            "input_file": file.id,
            "endpoint": endpoint,
            "window": window,
            "deadline": str(deadline_ms),
            "output_seconds": str(output_seconds),
            "phase": PHASES[0],
        },
    )


def public_id(job_id: str) -> str:
    """The id of a request batch in ``/v1``: that of its job, with another prefix."""
    return f"{PREFIX_OF_ID}_{job_id.partition('_')[2]}"


def output_file_id(job_id: str, name: str) -> str:
    """The id of a file that a request batch writes: ``output`` or ``error``."""
    return f"file-{derived_id('file', job_id, name).partition('_')[2]}"


def job_of(id: str) -> str | None:
    """The job of a request batch with this id of ``/v1``; None if it is not such an id."""
    return f"{JOB}_{id.partition('_')[2]}" if is_id(PREFIX_OF_ID, id) else None


def state_key(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}:requests"


def written_key(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}:written"


def seconds(milliseconds: int | str | None) -> int | None:
    return int(milliseconds) // 1000 if milliseconds else None
