"""The jobs of one request: submitted together, waited for, and cancelled when the client leaves."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import redis
from flask import g, request

from api.openai.errors import AnswerTimeout, ClientLeft, error_of_job
from api.openai.retries import DelayedCalls, Retries, Try
from api.services import owner, services
from api.submission import ALWAYS_ACCEPTED, require_disk_space
from shared.errors import EnginehouseError, NotFound
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission

logger = logging.getLogger(__name__)

# How often a waiting thread looks whether its client is still there.
LOOK_SECONDS = 0.25

DELAYED_CANCELS = DelayedCalls()


class RequestJobs:
    """Jobs that were submitted for the current request, or those of an earlier try that it repeats."""

    def __init__(self, ids: Sequence[str], this_try: Try | None, *, keep: bool) -> None:
        context = services()
        self.ids = list(ids)
        self._owner = owner()
        self._queries, self._transitions = context.queries, context.transitions
        self._retries = Retries(context.redis)
        self._try = this_try
        # With an Idempotency-Key a client can ask again, so its jobs go on without it.
        self._keep = keep
        self._connection: socket.socket | None = request.environ.get("gunicorn.socket")
        self._is_over = False

    def has_client_left(self) -> bool:
        """Whether the client has closed its connection. A test client has none."""
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

        Raises ClientLeft, AnswerTimeout, and the error of the first job that did not complete; in these cases no job goes on.
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

    def end(self) -> None:
        """Note that the response is complete. Unless the client has left meanwhile, no retry will ask for these jobs."""
        if not self._is_over and self._try is not None and not self.has_client_left():
            with suppress(redis.RedisError):
                self._retries.forget(self._try)
        self._is_over = True

    def leave(self, *, at_once: bool = False) -> None:
        """The client has left: cancel the jobs, after a moment if a retry may join them."""
        if self._is_over or self._keep:
            return
        this = self._try
        if at_once or this is None:
            self.cancel()
            return
        self._is_over = True
        with suppress(redis.RedisError):
            self._retries.put_first(this)
        DELAYED_CANCELS.add(lambda: self._cancel_unless_joined(this), this.grace_seconds)

    def cancel(self) -> None:
        """Cancel the jobs now. Those that have ended stay as they are."""
        self._is_over = True
        try:
            if self._try is not None:
                self._retries.forget(self._try)
            for job in self.ids:
                self._transitions.cancel(job, self._owner)
        except redis.RedisError as error:
            logger.warning("Jobs %s, whose client has left, are not cancelled: %s", ", ".join(self.ids), error)

    def _cancel_unless_joined(self, this: Try) -> None:
        if self._retries.forget(this):
            for job in self.ids:
                self._transitions.cancel(job, self._owner)

    def _await_end(self, ended: threading.Event, deadline: float, seconds: float) -> None:
        while not ended.wait(LOOK_SECONDS):
            if self.has_client_left():
                self.leave()
                raise ClientLeft("The client closed its connection before the answer.")
            if time.monotonic() >= deadline:
                self.cancel()
                raise AnswerTimeout(
                    f"The answer took longer than {seconds:g} seconds, so it was cancelled. Stream it, or ask the operator of the "
                    "server to raise ENGINEHOUSE_V1_WAIT_SECONDS.",
                    details={"jobs": self.ids},
                )


def submit_jobs(make_submissions: Callable[[], list[Submission]]) -> RequestJobs:
    """The jobs of the current request: those of the try that it repeats, or new ones, all or none.

    Raises what ``JobSubmitter.submit_job`` raises, and DiskFull.
    """
    retries = Retries(services().redis)
    submissions = make_submissions()
    ids = _usable_jobs(retries) or _submit_all(submissions)
    g.job_ids = ids
    return RequestJobs(ids, retries.remember(ids), keep=bool(submissions[0].idempotency_key))


def _usable_jobs(retries: Retries) -> list[str]:
    """The jobs of an earlier try that can still answer. A retry of a request that failed makes new ones."""
    while ids := retries.find_earlier():
        jobs = services().queries.read_jobs(ids)
        if len(jobs) == len(ids) and all(job.status is Status.COMPLETED or _may_complete(job) for job in jobs):
            return ids
    return []


def _may_complete(job: Job) -> bool:
    return not job.status.final and job.cancel_requested_at is None


def _submit_all(submissions: list[Submission]) -> list[str]:
    context, ids = services(), []
    if submissions[0].kind not in ALWAYS_ACCEPTED:
        require_disk_space()
    try:
        for submission in submissions:
            ids.append(context.submitter.submit_job(submission).id)
    except EnginehouseError:
        # The owner's queue is full after some of them.
        for job in ids:
            context.transitions.cancel(job, owner())
        raise
    return ids
