"""Worker runtime: the part of a worker process that holds leases.

It claims jobs, runs their attempts, renews their leases, sends the worker's heartbeat and receives cancel requests. It
depends neither on Celery nor on what the jobs do. Each duty of a thread is a method that a test can call by itself.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from math import ceil
from typing import Any, Literal

import redis

from shared.channel_listener import ChannelListener
from shared.ids import CLAIM, new_id
from shared.jobs.maintenance import JobMaintenance
from shared.jobs.models import Job
from shared.jobs.transitions import JobTransitions
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.machine import is_stopped, machine_id, start_ticks, started
from shared.redis_connection import PREFIX, is_outage
from shared.settings import Settings
from shared.work_context import WorkContext, working_on
from workers.runtime.attempt import Attempt, Handler
from workers.runtime.attempt_runner import AttemptRunner
from workers.runtime.attempt_spans import attempt_span, end_attempt_span
from workers.runtime.event_publisher import EventPublisher
from workers.runtime.lease_alarm import LeaseAlarm
from workers.runtime.outage import OutageLog, retry_through_outage

logger = logging.getLogger(__name__)

READY_POLL_SECONDS = 0.5

# Why the answer to a renewal stops an attempt.
STOP_MESSAGES = {
    "cancel": "it is to be cancelled",
    "timeout": "its timeout has passed",
    "lost": "its lease is lost; the job belongs to another attempt, or was deleted",
}

# How long a handler has to stop once its job was released; then the job is returned to its queue without it.
STOP_SECONDS = 3.0

# How long a free slot that is reserved for other owners waits before it looks for a job of theirs.
HELD_BACK_SECONDS = 0.25
# How long a slot of a worker that an operator drains waits before it asks whether the worker was resumed.
DRAINED_SECONDS = 2.0


def describe_process(
    name: str, *, pool: str, queues: tuple[str, ...], slots: int, model: str = "", phase: str = "ready", parent: int = 0
) -> Worker:
    """The registry entry of this process as a worker called ``name``, or as a child of that worker, whose process is ``parent``."""
    pid = os.getpid()
    return Worker(
        id=f"{name}/{pid}",
        name=name,
        pool=pool,
        machine=machine_id(),
        pid=pid,
        started=started(pid),
        start_ticks=start_ticks(pid),
        queues=queues,
        slots=slots,
        model=model,
        phase=phase,
        message="starting" if phase == "loading" else "",
        fraction=0.0 if phase == "loading" else 1.0,
        version=code_version(),
        parent=parent,
    )


def _context_of(attempt: Attempt) -> WorkContext:
    job = attempt.job
    return WorkContext(request_id=job.request_id, job=job.id, traceparent=job.traceparent, lines=attempt.lines)


@cache
def code_version() -> str:
    """The version of the installed distribution; empty in a checkout that is not installed."""
    try:
        return version("enginehouse")
    except PackageNotFoundError:
        return ""


class WorkerRuntime:
    """Runs attempts for one process, and keeps their leases, events and cancel requests.

    A pool may set ``collect_details``, whose fields are added to each heartbeat, and ``on_heartbeat``, which is called after
    each heartbeat with the model that this worker should hold (None if it has no model assignment). ``alarm`` kills a process
    that cannot go on.
    """

    def __init__(
        self,
        settings: Settings,
        transitions: JobTransitions,
        maintenance: JobMaintenance,
        worker_registry: WorkerRegistry,
        handlers: Mapping[str, Handler],
        worker: Worker,
        *,
        clock: Callable[[], float] = time.monotonic,
        alarm: LeaseAlarm | None = None,
    ) -> None:
        self.worker = worker
        self._alarm = alarm
        self.busy_slots = 0
        self._beside_slots = 0
        self.draining = threading.Event()
        self._releasing = threading.Event()
        self._out_of_time = threading.Event()
        self.collect_details: Callable[[], Mapping[str, Any]] = dict
        self.on_heartbeat: Callable[[str | None], None] = lambda model: None
        self._settings = settings
        self._transitions = transitions
        self._maintenance = maintenance
        self._worker_registry = worker_registry
        self._clock = clock
        self._event_publisher = EventPublisher(transitions)
        self._lease_outage = OutageLog(logger, "leases")
        self._claim_outage = OutageLog(logger, "claims of jobs")
        self._runner = AttemptRunner(transitions, self._event_publisher, handlers, sleep=self._out_of_time.wait)
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._last_used = clock()
        self._lock = threading.Lock()
        self._slot_released = threading.Condition()
        self._heartbeat_due = threading.Event()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        # A cancel request that is missed during an outage is answered by the next renewal.
        self._control_listener = ChannelListener(
            settings.redis_url,
            f"{PREFIX}worker:{worker.id}",
            lambda text: self.handle_control_message(json.loads(text)),
        )
        if worker.phase == "ready":
            self._ready.set()

    def start_threads(self) -> None:
        """Start renewing leases, sending heartbeats, receiving control messages and publishing events. Redis may come later."""
        threading.Thread(target=self._renew_until_stopped, name="renewal", daemon=True).start()
        threading.Thread(target=self._event_publisher.publish_until, args=[self._stopping], name="events", daemon=True).start()
        self._control_listener.start_listening()
        if self._alarm is not None:
            # A thread of its own, because the renewal may wait for an unavailable Redis.
            threading.Thread(target=self._postpone_alarm_until_stopped, name="alarm", daemon=True).start()

    def shut_down(self) -> None:
        """Stop the threads and leave the worker registry. No attempt may be running any more."""
        self._stopping.set()
        if self._alarm is not None:
            self._alarm.cancel()
        self._control_listener.stop_listening()
        self._heartbeat_due.set()
        self._event_publisher.wake_up()
        try:
            self._maintenance.mark_worker_dead(self.worker.id)
        except redis.RedisError as error:
            logger.info("could not leave the worker registry (%s); the maintenance of another worker will notice", error)

    def update_status(self, **changes: Any) -> None:
        """Change fields of this worker's registry entry (``phase``, ``message`` …) and send a heartbeat at once."""
        with self._lock:
            self.worker = replace(self.worker, **changes)
        # The jobs of a failed model are claimed too, so that they end with its error.
        if self.worker.phase in ("ready", "failed"):
            self._ready.set()
        else:
            self._ready.clear()
        self._heartbeat_due.set()

    def run_next_job(self, queue: str, *, has_slot: bool = True) -> str:
        """Claim the next job of a queue and run one attempt. Returns a line for Flower.

        A job without a slot never waits for the jobs that have one. While the worker is not ready it claims nothing, so that another worker may take the job and its queue position stays true.
        """
        with self._lock:
            self.busy_slots += has_slot
        try:
            while not self._ready.wait(READY_POLL_SECONDS):
                if self.draining.is_set():
                    return "draining"
            if self.draining.is_set():
                return "draining"
            job = self._claim_job(queue, has_slot=has_slot)
            while isinstance(job, str):
                # The wake-up is kept: returned, it would be replaced and come back at once, thousands of times.
                with self._slot_released:
                    self._slot_released.wait(HELD_BACK_SECONDS if job == "held_back" else DRAINED_SECONDS)
                if self.draining.is_set():
                    return "draining"
                job = self._claim_job(queue, has_slot=has_slot)
            if job is None:
                return "queue empty"
            attempt = Attempt(job, self._event_publisher.enqueue_buffer, self._clock)
            self._add_attempt(attempt, has_slot=has_slot)
            try:
                # The attempts may have been released while this job was being claimed.
                if self._releasing.is_set():
                    attempt.request_stop("release")
                with working_on(_context_of(attempt)), attempt_span(job) as span:
                    outcome = self._runner.run_attempt(attempt)
                    end_attempt_span(span, outcome, attempt.error_code)
                    self.write_lines([attempt])
            finally:
                self._remove_attempt(attempt, has_slot=has_slot)
            # A line for each job would fill logs and slow its reader; what did not complete is worth one.
            level = logging.DEBUG if outcome == "completed" else logging.INFO
            with working_on(replace(_context_of(attempt), lines=None)):
                logger.log(level, "job %s attempt %d: %s", job.id, job.attempt, outcome)
            return f"{job.id} {job.kind} {outcome} {attempt.error_code}".rstrip()
        finally:
            with self._lock:
                self.busy_slots -= has_slot

    def begin_drain(self, seconds: float) -> None:
        """Claim nothing more, and release after ``seconds`` what still runs then."""
        self.draining.set()

        def release_later() -> None:
            if not self._stopping.wait(seconds):
                self.release_attempts()
            if not self._stopping.wait(STOP_SECONDS):
                self.release_leases()

        threading.Thread(target=release_later, name="drain", daemon=True).start()

    def release_attempts(self) -> None:
        """Return the jobs of all running attempts to their queues, and a job that is just being claimed."""
        self._releasing.set()
        for attempt in self._running_attempts():
            attempt.request_stop("release")

    def release_leases(self) -> None:
        """Return the jobs whose attempts have not stopped. Whatever these still write is refused, so a planned stop loses no attempt."""
        self._out_of_time.set()
        for attempt in self._running_attempts():
            try:
                self._runner.release_lease(attempt)
            except redis.RedisError as error:
                logger.warning("job %s could not be released (%s); its lease will lapse", attempt.job.id, error)

    @property
    def idle_seconds(self) -> float:
        """How long this worker has run nothing."""
        with self._lock:
            return 0.0 if self._attempts else self._clock() - self._last_used

    def renew_leases(self) -> None:
        """Renew the leases of all running attempts once, and stop those that must not continue."""
        attempts = self._running_attempts()
        self.write_lines(attempts)
        answers = self._transitions.renew(self.worker.id, [attempt.lease for attempt in attempts])
        for attempt, answer in zip(attempts, answers, strict=True):
            # An attempt that has just settled its job is still listed.
            if answer != "ok" and answer != "settled":
                logger.info("job %s attempt %d: %s", attempt.job.id, attempt.job.attempt, STOP_MESSAGES[answer])
                attempt.request_stop(answer)

    def write_lines(self, attempts: Sequence[Attempt]) -> None:
        """Write what was logged during these attempts since the last call. Lines that cannot be written are lost."""
        lines = [(attempt.lease, line) for attempt in attempts for line in attempt.take_lines()]
        if not lines:
            return
        try:
            self._transitions.write_log(self.worker.id, lines)
        except redis.RedisError as error:
            logger.info("%d lines of jobs' logs are lost (%s)", len(lines), error)

    def postpone_alarm(self) -> None:
        """Show that this process is alive, unless an attempt has ignored a stop for two leases."""
        latest = self._clock() - 2 * self._settings.lease_seconds
        stuck = [
            attempt.job.id
            for attempt in self._running_attempts()
            if attempt.stop_requested_at is not None and attempt.stop_requested_at < latest
        ]
        if stuck:
            logger.error("jobs %s do not stop; the alarm will end this process", ", ".join(stuck))
        elif self._alarm is not None:
            self._alarm.postpone()

    def send_heartbeat(self) -> None:
        """Write this worker's registry entry, and pass on the model that it should hold.

        A child whose parent is stopped gets no jobs. Once it is idle it writes nothing and soon counts as absent; before that, its job
        would be taken from it.
        """
        if self.worker.parent and not self._running_attempts() and is_stopped(self.worker.parent):
            return
        details = self.collect_details()
        with self._lock:
            worker, running = self.worker, len(self._attempts)
        heartbeat = replace(worker, running=running, idle_ms=int(1000 * self.idle_seconds), **details)
        self.on_heartbeat(self._worker_registry.heartbeat(heartbeat))

    def handle_control_message(self, message: Mapping[str, Any]) -> None:
        """Act on a message to this worker: a cancel request, word that its desired model has changed, or that a job waits for a slot that it
        holds back."""
        if "job_waits" in message:
            with self._slot_released:
                self._slot_released.notify_all()
            return
        if "desired_model" in message:
            self._heartbeat_due.set()  # the answer to the heartbeat has the model
            return
        with self._lock:
            attempt = self._attempts.get((message["cancel"], message["attempt"]))
        if attempt is not None:
            attempt.request_stop("cancel")

    def _claim_job(self, queue: str, *, has_slot: bool) -> Job | Literal["held_back", "drained"] | None:
        """Claim with the same token throughout an outage: a claim may have been made although its answer was lost."""
        token = new_id(CLAIM)
        slots = self.worker.slots
        reserved = ceil(slots * self._settings.reserved_slots) if slots > 1 and has_slot else 0
        with self._lock:
            # Redis counts these jobs too, which occupy no slot.
            slots += self._beside_slots
        calls = count()
        return retry_through_outage(
            lambda: self._transitions.claim_for_slot(
                queue, self.worker.id, token, slots=slots, reserved=reserved, retried=next(calls) > 0
            ),
            self._claim_outage,
            sleep=self._out_of_time.wait,
        )

    def _add_attempt(self, attempt: Attempt, *, has_slot: bool) -> None:
        with self._lock:
            self._beside_slots += not has_slot
            self._attempts[attempt.lease] = attempt

    def _remove_attempt(self, attempt: Attempt, *, has_slot: bool) -> None:
        with self._lock:
            self._beside_slots -= not has_slot
            self._attempts.pop(attempt.lease, None)
            self._last_used = self._clock()
        attempt.events.forget_callbacks()
        with self._slot_released:
            self._slot_released.notify()

    def _running_attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts.values())

    def _postpone_alarm_until_stopped(self) -> None:
        while not self._stopping.wait(self._settings.renew_seconds):
            self.postpone_alarm()

    def _renew_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                self.renew_leases()
                self.send_heartbeat()
                self._lease_outage.note_success()
            except Exception as error:  # the top of this thread, which must live as long as the process
                if is_outage(error):
                    self._lease_outage.note_failure(error, f"{len(self._attempts)} are not renewed")
                else:
                    logger.exception("renewing leases failed")
            self._heartbeat_due.wait(self._settings.renew_seconds)
            self._heartbeat_due.clear()
