"""What the three Celery workers have in common: how they start, take tickets, prove that they live, drain and stop.

A pool of threads holds leases in the worker's own process; a prefork pool holds them in its children, which are born and
die one by one. Knows nothing of what the jobs are about: a pool brings its bodies.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery, bootsteps
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import state as worker_state

from shared import logs
from shared.jobs.celery_broker import CANARY, RUN_NEXT_JOB, CeleryBroker, canary_queue, celery_app
from shared.jobs.transitions import Lifecycle
from shared.jobs.worker_registry import WorkerRegistry
from shared.prctl import die_with_parent
from shared.redis_connection import connect
from shared.settings import Settings
from workers.runtime.attempt import Handler
from workers.runtime.maintenance import MaintenanceThread
from workers.runtime.worker_runtime import WorkerRuntime

logger = logging.getLogger(__name__)

# A wedged worker exits with this status, and its supervisor starts it again.
WEDGED = 70

# How soon a slot that has become free takes the next ticket.
FREE_SLOT_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One kind of worker. ``bodies`` is called once in every process that holds leases, after it has been forked;
    ``opened`` is then told the holder, and ``closed`` when the process ends."""

    name: str
    queues: tuple[str, ...]
    slots: int
    prefork: bool
    build_handlers: Callable[[], Mapping[str, Handler]]
    model: str = ""
    phase: str = "ready"
    on_start: Callable[[WorkerRuntime], None] = lambda runtime: None
    on_stop: Callable[[], None] = lambda: None


class StopSignals(bootsteps.StartStopStep):  # type: ignore[misc]
    """Takes the signals over that Celery has just put handlers on, all but SIGTERM.

    A pool of threads cannot do what Celery does at SIGQUIT: it stays, with its jobs, and takes no tickets any more. At SIGHUP
    Celery would replace the program in the same process, whose jobs then look as if they were still in good hands.
    """

    stop_worker: Callable[[int], None]

    def start(self, parent: Any) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: type(self).stop_worker(number))


class LookForFreeSlots(bootsteps.StartStopStep):  # type: ignore[misc]
    """Makes Celery's loop turn often, and see that a slot has become free.

    While all slots are taken it asks Redis for no ticket, and a pool of threads does not tell it when one is free again: it slept
    up to a second beside waiting jobs.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        parent.timer.call_repeatedly(FREE_SLOT_SECONDS, lambda: None)


class CeleryWorker:
    """Ties a pool to a Celery app. One instance a process, made at import by ``workers.<pool>.app``."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self.app: Celery = celery_app(settings, events="workers.runtime.celery_events:GatheredEvents")
        self._settings = settings
        self._pool = pool
        self._name = pool.name
        self._runtime: WorkerRuntime | None = None
        self._maintenance: MaintenanceThread | None = None
        self._canary_taken = time.monotonic()
        self._stopping = threading.Event()
        self._stop_requested = self._exiting = False
        # Made before the fork, so that the children of a prefork pool hear of a drain without Redis.
        fork = multiprocessing.get_context("fork")
        self._drain_children = fork.Event() if pool.prefork else None
        self._hurry_children = fork.Event() if pool.prefork else None
        self._hurried = False
        if not pool.prefork:
            self.app.steps["consumer"].add(LookForFreeSlots)
        self.app.steps["worker"].add(StopSignals)
        StopSignals.stop_worker = self._on_stop_signal
        self.app.task(name=RUN_NEXT_JOB)(self.run_next_job)
        self.app.task(name=CANARY)(self.answer_canary)
        if pool.prefork:
            # Loading what a child needs may take longer than the four seconds that Celery allows by default.
            self.app.conf.worker_proc_alive_timeout = 120
        self._connect_signals()

    def run_next_job(self, queue: str) -> str:
        """Serve one ticket; the answer is shown by Flower. Nothing may leave a task by exception: the threads pool would
        lose the slot for ever."""
        if self._runtime is None:
            return "this process holds no leases"
        try:
            return self._runtime.run_next_job(queue)
        except Exception as error:
            logger.exception("a ticket of queue %s failed", queue)
            return f"failed: {type(error).__name__}"

    def run(self, arguments: Sequence[str]) -> bool:
        """Be the Celery worker with these options until it ends; whether that was its own wish (``leave``) and nobody else's."""
        self.app.worker_main(["--quiet", "worker", *arguments])
        return self._exiting and not self._stop_requested

    def drain_and_exit(self) -> None:
        """Drain and end as SIGTERM would have it, so that ``run`` returns. Any thread may call this."""
        self._exiting = True
        self._drain()
        worker_state.should_stop = 0

    def answer_canary(self) -> str:
        """Taking it in time shows that the worker still takes tickets (``ping`` is answered by a wedged one too)."""
        self._canary_taken = time.monotonic()
        return "alive"

    def _connect_signals(self) -> None:
        setup_logging.connect(lambda **_: logs.configure(self._settings.log_level), weak=False)
        celeryd_after_setup.connect(self._start_worker, weak=False)
        worker_shutting_down.connect(self._on_stop_request, weak=False)
        worker_shutdown.connect(self._stop, weak=False)
        if self._pool.prefork:
            worker_process_init.connect(self._start_child, weak=False)
            worker_process_shutdown.connect(self._stop_child, weak=False)

    def _start_worker(self, sender: str, instance: Any, **_: Any) -> None:
        self._name = sender
        instance.app.amqp.queues.select_add(canary_queue(sender))
        lifecycle, worker_registry = self._lifecycle()
        if not self._pool.prefork:
            self._open(lifecycle, worker_registry)
        self._maintenance = MaintenanceThread(self._settings, lifecycle, worker_registry, self._name)
        self._maintenance.start()
        threading.Thread(target=self._return_former_jobs, args=(self._maintenance,), name="take back", daemon=True).start()
        threading.Thread(target=self._send_canaries, name="canary", daemon=True).start()

    def _return_former_jobs(self, maintenance: MaintenanceThread) -> None:
        """Return what this worker's former self held, as soon as Redis answers."""
        while not self._stopping.is_set():
            try:
                maintenance.return_former_jobs()
                return
            except redis.RedisError as error:
                logger.warning("Redis is away (%s); it is asked again", error)
                self._stopping.wait(1.0)

    def _start_child(self, **_: Any) -> None:
        # A child that outlives its worker would go on taking jobs without a supervisor.
        die_with_parent()
        self._open(*self._lifecycle())
        threading.Thread(target=self._drain_with_parent, name="drain", daemon=True).start()

    def _lifecycle(self) -> tuple[Lifecycle, WorkerRegistry]:
        client = connect(self._settings.redis_url)
        return Lifecycle(client, self._settings, CeleryBroker(client).wake), WorkerRegistry(client)

    def _open(self, lifecycle: Lifecycle, worker_registry: WorkerRegistry) -> None:
        pool = self._pool
        self._runtime = WorkerRuntime(
            self._settings,
            lifecycle,
            worker_registry,
            pool.build_handlers(),
            name=self._name,
            pool=pool.name,
            queues=pool.queues,
            slots=1 if pool.prefork else pool.slots,
            model=pool.model,
            phase=pool.phase,
        )
        self._runtime.start()
        pool.on_start(self._runtime)

    def _send_canaries(self) -> None:
        tickets, interval = CeleryBroker(connect(self._settings.redis_url)), self._settings.canary_seconds
        free_since = sent = time.monotonic()
        while not self._stopping.wait(min(1.0, interval / 4)):
            now = time.monotonic()
            # A worker whose slots are all taken rightly leaves its canary waiting.
            if self._runtime is not None and self._runtime.busy_slots >= self._pool.slots:
                free_since = now
            if now - sent < interval:
                continue
            silent_for = now - max(self._canary_taken, free_since)
            if silent_for > 3 * interval and not self._pool.prefork:
                logger.critical(
                    "%s has free slots but took no ticket for %.0f s: it ends, to be started anew", self._name, silent_for
                )
                logging.shutdown()
                os._exit(WEDGED)
            try:
                tickets.send_canary(self._name)
                sent = now
            except Exception as error:  # noqa: BLE001 the top of this thread; a broker that is away is no sign of a wedge
                logger.warning("no canary could be sent (%s)", error)
                free_since = sent = now

    def _on_stop_signal(self, number: int) -> None:
        """Whatever asks the worker to stop makes it drain; SIGQUIT and a second Ctrl-C, without waiting for what runs."""
        if number == signal.SIGQUIT or (number == signal.SIGINT and self._stopping.is_set()):
            self._hurried = True
        signal.raise_signal(signal.SIGTERM)  # Celery's warm shutdown; it tells `_told`

    def _on_stop_request(self, **_: Any) -> None:
        self._stop_requested = True
        self._drain()

    def _drain(self) -> None:
        seconds = 0.0 if self._hurried else self._settings.drain_seconds
        logger.info(
            "%s drains: it takes no new jobs, and those that still run in %.0f s go back to their queue", self._name, seconds
        )
        self._stopping.set()
        if self._drain_children is not None and self._hurry_children is not None:
            self._drain_children.set()
            if self._hurried:
                self._hurry_children.set()
        if self._runtime is not None:
            self._runtime.drain(seconds)

    def _drain_with_parent(self) -> None:
        assert self._drain_children is not None
        assert self._hurry_children is not None
        self._drain_children.wait()
        if self._runtime is not None:
            self._runtime.drain(self._settings.drain_seconds)
        self._hurry_children.wait()
        if self._runtime is not None:
            self._runtime.drain(0)

    def _stop(self, **_: Any) -> None:
        self._stopping.set()
        if self._maintenance is not None:
            self._maintenance.stop()
        self._stop_child()

    def _stop_child(self, **_: Any) -> None:
        if self._runtime is not None:
            self._pool.on_stop()
            self._runtime.stop()
