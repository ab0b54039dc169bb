"""A process that holds leases: it keeps them renewed, hears of cancels, and tells Redis that it is alive.

Knows neither Celery nor what the jobs are about.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import redis

from shared.ids import CLAIM, new_id
from shared.jobs.models import Job
from shared.jobs.transitions import Lifecycle
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.machine import machine_id, started
from shared.redis_connection import PREFIX, connect, is_outage
from shared.settings import Settings
from workers.runtime.attempt import Attempt, Handler, run_attempt
from workers.runtime.event_publisher import EventPublisher

logger = logging.getLogger(__name__)


class WorkerRuntime:
    """Runs attempts for one process and keeps what they need: their leases, their events, their cancels."""

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        worker_registry: WorkerRegistry,
        handlers: Mapping[str, Handler],
        *,
        name: str,
        pool: str,
        queues: tuple[str, ...],
        slots: int,
        model: str = "",
        phase: str = "ready",
    ) -> None:
        pid = os.getpid()
        self._settings = settings
        self._lifecycle = lifecycle
        self._worker_registry = worker_registry
        self._handlers = handlers
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._lock = threading.Lock()
        self._heartbeat_due = threading.Event()
        self._stop = threading.Event()
        self._ready = threading.Event()
        self.draining = threading.Event()
        self.event_publisher = EventPublisher(lifecycle)
        self.worker = Worker(
            id=f"{name}/{pid}",
            name=name,
            pool=pool,
            machine=machine_id(),
            pid=pid,
            started=started(pid),
            queues=queues,
            slots=slots,
            model=model,
            phase=phase,
        )
        self.busy_slots = 0
        # For a pool that has more to tell and to hear: called before, and with the answer after, each word to the workforce.
        self.collect_details: Callable[[], Mapping[str, Any]] = dict
        self.on_heartbeat: Callable[[str | None], None] = lambda wish: None
        self._used = time.monotonic()
        if phase == "ready":
            self._ready.set()

    def start(self) -> None:
        """Enroll and start the threads. Waits for a Redis that is not there yet."""
        for name, target in (("renewal", self._renew_forever), ("control", self._listen_forever)):
            threading.Thread(target=target, name=name, daemon=True).start()
        self.event_publisher.start()

    def stop(self) -> None:
        """End the threads and leave the list of workers; nothing may run any more."""
        self._stop.set()
        self._heartbeat_due.set()
        self.event_publisher.stop()
        try:
            self._lifecycle.mark_worker_dead(self.worker.id)
        except redis.RedisError as error:
            logger.info("could not sign off (%s); the others will notice", error)

    def update_status(self, **changes: Any) -> None:
        """Change what this worker says of itself (``phase``, ``message`` …) and tell it at once."""
        with self._lock:
            self.worker = replace(self.worker, **changes)
        if self.worker.phase in ("ready", "failed"):
            self._ready.set()
        else:
            self._ready.clear()
        self._heartbeat_due.set()

    def run_next_job(self, queue: str) -> str:
        """Take the next job of a queue and run it to the end of the attempt. The answer is what Flower shows.

        While the worker is not ready no job is claimed, so that another worker may have it and its queue position is true.
        """
        with self._lock:
            self.busy_slots += 1
        try:
            while not self._ready.wait(0.5):
                if self.draining.is_set():
                    return "draining"
            if self.draining.is_set():
                return "draining"
            job = self._claim(queue)
            if job is None:
                return "no job waited"
            attempt = Attempt(job, self.event_publisher)
            with self._lock:
                self._attempts[attempt.lease] = attempt
                self._used = time.monotonic()
            try:
                outcome = run_attempt(self._lifecycle, self.event_publisher, attempt, self._handlers)
            finally:
                with self._lock:
                    self._attempts.pop(attempt.lease, None)
                    self._used = time.monotonic()
            logger.info("job %s attempt %d: %s", job.id, job.attempt, outcome)
            return f"{job.id} {outcome}"
        finally:
            with self._lock:
                self.busy_slots -= 1

    def _claim(self, queue: str) -> Job | None:
        """Claim, asking again with the same token while Redis is away: the claim may have been made and its answer lost."""
        token = new_id(CLAIM)
        deadline = time.monotonic() + self._settings.lease_seconds
        while True:
            try:
                return self._lifecycle.claim(queue, self.worker.id, token)
            except redis.RedisError as error:
                if not is_outage(error) or time.monotonic() > deadline or self._stop.wait(0.5):
                    raise

    def drain(self, seconds: float) -> None:
        """Claim nothing more; what still runs after ``seconds`` goes back to its queue."""
        self.draining.set()

        def release() -> None:
            if not self._stop.wait(seconds):
                for attempt in self._running_attempts():
                    attempt.request_stop("release")

        threading.Thread(target=release, name="drain", daemon=True).start()

    @property
    def idle_seconds(self) -> float:
        """For how long nothing has run here."""
        with self._lock:
            return 0.0 if self._attempts else time.monotonic() - self._used

    def _running_attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._attempts.values())

    def _renew_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self.renew()
            except Exception as error:  # the top of this thread, which must live as long as the process
                if is_outage(error):
                    logger.warning("Redis is away (%s); %d leases cannot be renewed", error, len(self._attempts))
                else:
                    logger.exception("renewing leases failed")
            self._heartbeat_due.wait(self._settings.renew_seconds)
            self._heartbeat_due.clear()

    def renew(self) -> None:
        """Renew all leases once, tell that this worker is alive, and pass on what the answers say."""
        attempts = self._running_attempts()
        words = self._lifecycle.renew(self.worker.id, [attempt.lease for attempt in attempts])
        for attempt, word in zip(attempts, words, strict=True):
            if word != "ok":
                logger.info("job %s attempt %d: %s", attempt.job.id, attempt.job.attempt, word)
                attempt.request_stop(word)
        more = self.collect_details()
        told = replace(self.worker, running=len(attempts), idle_ms=int(1000 * self.idle_seconds), **more)
        self.on_heartbeat(self._worker_registry.heartbeat(told))

    def _listen_forever(self) -> None:
        client = connect(self._settings.redis_url, blocks=50.0)
        while not self._stop.is_set():
            try:
                with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(f"{PREFIX}worker:{self.worker.id}")
                    while not self._stop.is_set():
                        message = channel.get_message(timeout=5.0)
                        if message is not None:
                            self._handle_control_message(json.loads(message["data"]))
            except (redis.RedisError, OSError) as error:
                # A cancel missed here comes with the next renewal.
                logger.debug("the control channel broke (%s)", error)
                self._stop.wait(1.0)

    def _handle_control_message(self, message: dict[str, Any]) -> None:
        if "desired_model" in message:
            self._heartbeat_due.set()  # the answer to the next word to the workforce has it
            return
        lease = (message["cancel"], message["attempt"])
        with self._lock:
            attempt = self._attempts.get(lease)
        if attempt is not None:
            attempt.request_stop("cancel")
