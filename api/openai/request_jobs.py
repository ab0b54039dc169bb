"""The jobs of one request: submit them together, wait for them, and cancel them when the client disconnects."""

import logging
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import redis
from flask import g, request

from api.openai.client_retries import DelayedCalls, RepeatableRequest, RepeatableRequests
from api.openai.errors import ClientDisconnected
from api.services import owner, services
from api.submission import ALWAYS_ACCEPTED, require_disk_space
from shared.errors import NotFound
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from shared.openai.job_errors import AnswerTimeout, error_of_job

logger = logging.getLogger(__name__)

# How often a waiting thread checks that its client is still connected.
CONNECTION_CHECK_SECONDS = 0.25

DELAYED_CANCELS = DelayedCalls()


class RequestJobs:
    """The jobs that were submitted for the current request, or those of the earlier request that it repeats."""

    def __init__(self, ids: Sequence[str], repeatable: RepeatableRequest | None, *, keep: bool) -> None:
        context = services()
        self.ids = list(ids)
        self._owner = owner()
        self._queries, self._transitions = context.queries, context.transitions
        self._repeatable_requests = RepeatableRequests(context.redis)
        self._repeatable = repeatable
        # If the client can fetch the answer later, its jobs run on.
        self.keep = keep
        self._connection: socket.socket | None = request.environ.get("gunicorn.socket")
        self._is_over = False

    def is_client_gone(self) -> bool:
        """Whether the client has closed its connection. Always False for Flask's test client, which has no connection."""
        if self._connection is None:
            return False
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def wait(self, seconds: float) -> list[Job]:
        """The jobs once all have completed.

        Raises ClientDisconnected, AnswerTimeout, and the error of the first job that did not complete; in these cases all of them are cancelled.
        """
        waiter, deadline = services().job_waiter, time.monotonic() + seconds
        with waiter.watch_jobs(self.ids) as ended:
            final = {job.id for job in self._queries.read_jobs(self.ids) if job.status.final}
            for job_id, event in zip(self.ids, ended, strict=True):
                if job_id not in final:
                    self._await_end(event, deadline, seconds)
        jobs = [self.read(job_id) for job_id in self.ids]
        for job in jobs:
            if job.status is not Status.COMPLETED:
                error = error_of_job(job)
                self.cancel()
                raise error
        return jobs

    def read(self, job_id: str) -> Job:
        """The job with its result. Raises NotFound."""
        job = self._queries.get_job(job_id)
        if job is None:
            raise NotFound(f"Job {job_id} was deleted while this request waited for it.", code="job_not_found")
        return job

    def may_be_repeated(self) -> bool:
        """Whether the client may have missed the answer and send the request again."""
        return self._repeatable is not None and self.is_client_gone()

    def end(self) -> None:
        """Mark the response as complete. Unless the client has disconnected in the meantime, no retry will ask for these jobs."""
        if not self._is_over and self._repeatable is not None and not self.is_client_gone():
            with suppress(redis.RedisError):
                self._repeatable_requests.remove(self._repeatable)
        self._is_over = True

    def handle_disconnect(self, *, retry_expected: bool = True) -> None:
        """Cancel the jobs of a client that has disconnected, after a grace period if a retry may take them over."""
        if self._is_over:
            return
        repeatable = self._repeatable
        if self.keep:
            if repeatable is not None and not retry_expected:
                with suppress(redis.RedisError):
                    self._repeatable_requests.remove(repeatable)
            return
        if not retry_expected or repeatable is None:
            self.cancel()
            return
        self._is_over = True
        with suppress(redis.RedisError):
            self._repeatable_requests.move_to_front(repeatable)
        DELAYED_CANCELS.add(lambda: self._cancel_unless_taken_over(repeatable), repeatable.grace_seconds)

    def delete(self) -> None:
        """Delete the jobs, which have ended. If Redis is away, they are deleted when they have outlived their retention."""
        with suppress(redis.RedisError):
            for job in self.ids:
                self._transitions.delete(job, self._owner)

    def cancel(self) -> None:
        """Cancel the jobs now. Those that have ended stay as they are."""
        self._is_over = True
        try:
            if self._repeatable is not None:
                self._repeatable_requests.remove(self._repeatable)
            for job in self.ids:
                self._transitions.cancel(job, self._owner)
        except redis.RedisError as error:
            logger.warning("Could not cancel jobs %s, whose client has disconnected: %s", ", ".join(self.ids), error)

    def _cancel_unless_taken_over(self, repeatable: RepeatableRequest) -> None:
        if self._repeatable_requests.remove(repeatable):
            for job in self.ids:
                self._transitions.cancel(job, self._owner)

    def _await_end(self, ended: threading.Event, deadline: float, seconds: float) -> None:
        while not ended.wait(CONNECTION_CHECK_SECONDS):
            if self.is_client_gone():
                self.handle_disconnect()
                raise ClientDisconnected("The client closed its connection before the answer.")
            if time.monotonic() >= deadline:
                self.cancel()
                raise AnswerTimeout(
                    f"The answer took longer than {seconds:g} seconds, so it was cancelled. Stream it, or ask the operator of the "
                    "server to raise ENGINEHOUSE_V1_WAIT_SECONDS.",
                    details={"jobs": self.ids},
                )


def submit_jobs(submissions: list[Submission], *, keep: bool = False) -> RequestJobs:
    """The jobs of the current request: those of the request that it repeats, or new ones, all or none.

    With ``keep``, or an Idempotency-Key, they run on when the client disconnects. Raises what ``JobSubmitter.submit_job`` raises, and DiskFull.
    """
    repeatable_requests = RepeatableRequests(services().redis)
    ids = _usable_jobs(repeatable_requests) or _submit_all(submissions)
    g.job_ids = ids
    return RequestJobs(ids, repeatable_requests.add(ids), keep=keep or bool(submissions[0].idempotency_key))


def _usable_jobs(repeatable_requests: RepeatableRequests) -> list[str]:
    """The jobs of an earlier request that can still complete. A retry after a failure starts new ones."""
    while ids := repeatable_requests.take_earlier_jobs():
        jobs = services().queries.read_jobs(ids)
        if len(jobs) == len(ids) and all(job.status is Status.COMPLETED or _may_complete(job) for job in jobs):
            return ids
    return []


def _may_complete(job: Job) -> bool:
    return not job.status.final and job.cancel_requested_at is None


def _submit_all(submissions: list[Submission]) -> list[str]:
    if submissions[0].kind not in ALWAYS_ACCEPTED:
        require_disk_space()
    return [submitted.id for submitted in services().submitter.submit_jobs(submissions)]
