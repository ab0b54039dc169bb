"""Celery worker: start, wake-ups, canary, drain and stop of the worker processes of all pools.

A pool with threads holds leases in the worker's own process; a prefork pool holds them in its children, which start and end
one by one. This module, ``celery_events`` and ``shared.jobs.celery_broker`` are the only ones that depend on Celery's
internals; tests/unit/test_celery_internals.py lists which.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from celery import Celery, bootsteps
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import state as worker_state
from kombu.asynchronous import get_event_loop

from shared import logs
from shared.data_folder import open_data_folder
from shared.jobs.celery_broker import CANARY, RUN_NEXT_JOB, CeleryBroker, WakeupChannel, celery_app
from shared.jobs.maintenance import JobMaintenance
from shared.jobs.queue_names import canary_queue
from shared.jobs.transitions import JobTransitions
from shared.jobs.worker_registry import WorkerRegistry
from shared.liveness import liveness_folder, touch_until
from shared.machine import freeze_objects
from shared.prctl import die_with_parent
from shared.redis_connection import connect
from shared.settings import Settings
from shared.systemd import notify
from shared.tracing import configure_tracing
from workers.runtime.attempt import Handler
from workers.runtime.canary import Canary
from workers.runtime.lease_alarm import LeaseAlarm
from workers.runtime.maintenance import DeadWorkerCleaner, MaintenanceService, maintenance_thread
from workers.runtime.name_holder import NameHolder
from workers.runtime.side_queue_reader import SideQueueReader
from workers.runtime.worker_runtime import WorkerRuntime, describe_process

logger = logging.getLogger(__name__)

# A wedged worker exits with this status, and its supervisor restarts it.
WEDGED = 70

# A worker whose name another one has exits with this status.
NAME_TAKEN = 71

# How often a worker looks at its canary, in the time between two of them.
CANARY_CHECKS = 6

# Loading what a prefork child needs can take longer than the four seconds that Celery allows by default.
CHILD_START_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One kind of worker.

    ``build_handlers`` is called once in every process that holds leases, after the fork. ``find_problems`` returns what this
    machine lacks; it is logged once per worker. ``build_services`` returns the pool's own maintenance. ``on_start`` is called with the
    runtime once it runs, and ``on_stop`` before it shuts down. ``side_queues`` have jobs that each process with leases runs
    beside its slots, in this number of threads for each queue.
    """

    name: str
    queues: tuple[str, ...]
    slots: int
    prefork: bool
    build_handlers: Callable[[], Mapping[str, Handler]]
    side_queues: Mapping[str, int] = field(default_factory=dict)
    model: str = ""
    phase: str = "ready"
    find_problems: Callable[[], Sequence[str]] = tuple
    build_services: Callable[[], Sequence[MaintenanceService]] = tuple
    on_start: Callable[[WorkerRuntime], None] = lambda runtime: None
    on_stop: Callable[[], None] = lambda: None


class StopSignals(bootsteps.StartStopStep):  # type: ignore[misc]
    """Replaces the signal handlers that Celery has just installed, except that of SIGTERM.

    Celery's SIGQUIT does not end a pool of threads: the process stays with its jobs and takes no more messages. Its SIGHUP
    replaces the program within the same process, whose jobs then look as if they still ran.
    """

    on_signal: Callable[[int], None]

    def start(self, parent: Any) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: type(self).on_signal(number))


class ThreadsAfterFork(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the threads of a prefork worker once its first children are forked.

    A child that is forked while a thread holds a lock waits for that lock for ever. Children that replace dead ones are forked
    beside the threads; one that hangs is replaced after ``CHILD_START_SECONDS``.
    """

    requires = ("celery.worker.components:Pool",)

    start_threads: Callable[[], None]

    def start(self, parent: Any) -> None:
        type(self).start_threads()


class FreeSlotNotice(bootsteps.StartStopStep):  # type: ignore[misc]
    """Makes Celery's loop turn when a thread of the pool becomes free.

    While all slots are busy, Celery does not read its queues, and a pool of threads does not report a slot that becomes free:
    a free slot would wait up to a second beside queued jobs.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        pool, hub = parent.pool, parent.hub
        apply = type(pool).on_apply  # that of the class, as this step starts again after each loss of the connection

        def apply_and_notice(*arguments: Any, **options: Any) -> Any:
            result = apply(pool, *arguments, **options)
            result.f.add_done_callback(lambda _: hub.call_soon(_turn_loop))
            return result

        pool.on_apply = apply_and_notice


def _turn_loop() -> None:
    """Do nothing, but from Celery's loop, which then looks at its queues again."""


def _wake_celery() -> None:
    """Let Celery's loop notice at once that it is to stop, not after up to a second. The loop's own thread cannot wake it."""
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(_turn_loop)  # type: ignore[no-untyped-call]


class CeleryWorker:
    """Ties a pool to a Celery app. One per process, which ``python -m workers.<pool>`` creates."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        open_data_folder(settings.data_dir)
        self.app: Celery = celery_app(settings, events="workers.runtime.celery_events:BatchedEvents")
        self._settings = settings
        self._pool = pool
        self._name = pool.name
        self._runtime: WorkerRuntime | None = None
        self._alarm = LeaseAlarm(2 * settings.lease_seconds)
        self._canary = Canary(settings.canary_seconds, time.monotonic())
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._name_holder: NameHolder | None = None
        self._threads: list[threading.Thread] = []
        self._stop_requested = self._exiting = self._hurried = self._reported_ready = False
        # Created before the fork, so that a drain reaches the children of a prefork pool without Redis.
        fork = multiprocessing.get_context("fork")
        self._drain_children = fork.Event() if pool.prefork else None
        self._hurry_children = fork.Event() if pool.prefork else None
        self._configure_app()
        self._connect_signals()

    def run_next_job(self, queue: str) -> str:
        """Celery task: run the next job of a queue. The result is shown by Flower.

        No exception may leave a task: the pool of threads would lose the slot for ever.
        """
        if self._runtime is None:
            return "this process holds no leases"
        try:
            return self._runtime.run_next_job(queue)
        except Exception as error:
            logger.exception("running a job of queue %s failed", queue)
            return f"failed: {type(error).__name__}"

    def answer_canary(self) -> str:
        """Celery task: show that this worker still takes messages."""
        self._canary.note_answer(time.monotonic())
        return "alive"

    def run_until_exit(self, name: str) -> bool:
        """Be the Celery worker with this name until it exits. Returns whether only ``drain_and_exit`` asked it to.

        This is what ``celery worker`` does, without the command line, whose modules take a third of a second and some megabytes.
        """
        pool = self._pool
        worker = self.app.Worker(
            hostname=name,
            pool_cls="prefork" if pool.prefork else "threads",
            concurrency=pool.slots,
            # Without a queue of its own, it reads only its canaries.
            queues=pool.queues or (canary_queue(name),),
            # Flower needs the events. Workers do not need each other; mingle and gossip would delay their start by a second.
            task_events=True,
            without_mingle=True,
            without_gossip=True,
            # By default two seconds. Flower takes a worker for offline that is silent for two intervals.
            heartbeat_interval=5,
            optimization="default",
            loglevel="WARNING",
            quiet=True,
        )
        worker.start()
        if worker.exitcode:
            sys.exit(worker.exitcode)
        return self._exiting and not self._stop_requested

    def drain_and_exit(self) -> None:
        """Drain and exit as after SIGTERM, so that ``run_until_exit`` returns. Any thread may call this."""
        self._exiting = True
        self._begin_drain()
        worker_state.should_stop = 0
        _wake_celery()

    def _configure_app(self) -> None:
        if self._pool.prefork:
            self.app.conf.worker_proc_alive_timeout = CHILD_START_SECONDS
            self.app.steps["worker"].add(ThreadsAfterFork)
            ThreadsAfterFork.start_threads = self._start_threads
        else:
            self.app.steps["consumer"].add(FreeSlotNotice)
        # As Celery counts them. A wake-up that it read without a free slot would wait here beside the free slots of other workers.
        WakeupChannel.count_free_slots = lambda: self._pool.slots - len(worker_state.reserved_requests)
        self.app.steps["worker"].add(StopSignals)
        StopSignals.on_signal = self._on_stop_signal
        self.app.task(name=RUN_NEXT_JOB)(self.run_next_job)
        self.app.task(name=CANARY)(self.answer_canary)

    def _connect_signals(self) -> None:
        # Celery warns against running as root, because workers that accept pickle then run any code as root. Ours accept only JSON.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        # At each outage, Celery announces that a later release will cancel tasks which are acknowledged late. There are none.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        setup_logging.connect(self._configure_logs, weak=False)
        celeryd_after_setup.connect(self._on_worker_start, weak=False)
        worker_shutting_down.connect(self._on_stop_request, weak=False)
        worker_shutdown.connect(self._on_worker_exit, weak=False)
        if self._pool.prefork:
            worker_process_init.connect(self._on_child_start, weak=False)
            worker_process_shutdown.connect(self._on_child_exit, weak=False)

    def _configure_logs(self, **_: Any) -> None:
        settings = self._settings
        logs.configure(settings.log_level, form=settings.log_format, levels=settings.log_levels)

    # Start

    def _on_worker_start(self, sender: str, instance: Any, **_: Any) -> None:
        self._name = sender
        for problem in self._pool.find_problems():
            logger.warning("%s", problem)
        instance.app.amqp.queues.select_add(canary_queue(sender))
        transitions, maintenance, worker_registry = self._connect_redis()
        name_holder = NameHolder(worker_registry, sender, self._settings, on_loss=self.drain_and_exit)
        if problem := name_holder.take_name():
            logger.critical("%s", problem)
            logging.shutdown()
            os._exit(NAME_TAKEN)
        self._name_holder = name_holder
        # Imported before a thread could import it: a child that replaces another would wait for that thread, which it does not have.
        CeleryBroker(connect(self._settings.redis_url)).prepare()
        services = [name_holder, *self._pool.build_services()]
        cleaner = DeadWorkerCleaner(self._settings, maintenance, worker_registry)
        liveness = liveness_folder(self._settings.data_dir) / sender
        self._threads = [
            maintenance_thread(self._settings, maintenance, worker_registry, self._stopping, services),
            threading.Thread(target=self._requeue_jobs_of_predecessor, args=(cleaner,), name="predecessor", daemon=True),
            threading.Thread(target=self._send_canaries, name="canary", daemon=True),
            threading.Thread(
                target=touch_until, args=[self._stopping, liveness, self._notify_systemd], name="liveness", daemon=True
            ),
        ]
        if self._pool.prefork:
            freeze_objects()
        else:
            self._start_runtime(transitions, maintenance, worker_registry)
            self._start_threads()

    def _start_threads(self) -> None:
        for thread in self._threads:
            thread.start()

    def _notify_systemd(self) -> None:
        """Notify systemd, if it started this worker, that the worker is alive, and once that its model is loaded."""
        notify("WATCHDOG=1")
        without_model = self._runtime is not None and self._runtime.worker.phase in ("loading", "warming", "failed")
        if not self._reported_ready and not without_model:
            notify("READY=1")
            self._reported_ready = True

    def _on_child_start(self, **_: Any) -> None:
        # A child that outlives its worker would go on running jobs without a supervisor.
        if not die_with_parent():
            logger.warning("this system cannot end a process with its parent; a killed worker may leave children behind")
        self._start_runtime(*self._connect_redis(), self._alarm)
        self._alarm.install()
        threading.Thread(target=self._drain_with_worker, name="drain", daemon=True).start()

    def _connect_redis(self) -> tuple[JobTransitions, JobMaintenance, WorkerRegistry]:
        client = connect(self._settings.redis_url)
        wake = CeleryBroker(client).wake
        transitions = JobTransitions(client, self._settings, wake)
        return transitions, JobMaintenance(client, self._settings, wake), WorkerRegistry(client)

    def _start_runtime(
        self,
        transitions: JobTransitions,
        maintenance: JobMaintenance,
        worker_registry: WorkerRegistry,
        alarm: LeaseAlarm | None = None,
    ) -> None:
        pool = self._pool
        configure_tracing(f"{pool.name}-worker", self._settings)
        slots, parent = (1, os.getppid()) if pool.prefork else (pool.slots, 0)
        worker = describe_process(
            self._name,
            pool=pool.name,
            queues=(*pool.queues, *pool.side_queues),
            slots=slots,
            model=pool.model,
            phase=pool.phase,
            parent=parent,
        )
        self._runtime = WorkerRuntime(
            self._settings, transitions, maintenance, worker_registry, pool.build_handlers(), worker, alarm=alarm
        )
        self._runtime.start_threads()
        for queue, threads in pool.side_queues.items():
            SideQueueReader(self._settings.redis_url, queue, threads, self._runtime).start_threads()
        pool.on_start(self._runtime)

    def _requeue_jobs_of_predecessor(self, cleaner: DeadWorkerCleaner) -> None:
        while not self._draining.is_set():
            try:
                cleaner.requeue_jobs_of_predecessor(self._name)
                return
            except redis.RedisError as error:
                logger.warning("Redis is unavailable (%s); looking for jobs of a predecessor again in a second", error)
                self._draining.wait(1.0)

    # Canary

    def _send_canaries(self) -> None:
        broker = CeleryBroker(connect(self._settings.redis_url))
        while not self._draining.wait(self._settings.canary_seconds / CANARY_CHECKS):
            now = time.monotonic()
            busy = self._runtime is not None and self._runtime.busy_slots >= self._pool.slots
            action = self._canary.next_action(now, all_slots_busy=busy)
            # A prefork pool has its slots in its children, so a busy pool cannot be distinguished from a wedged one.
            if action == "wedged" and not self._pool.prefork:
                silence = self._canary.silent_seconds(now)
                logger.critical("%s had free slots but took no message for %.0f s; it exits to be restarted", self._name, silence)
                logging.shutdown()
                os._exit(WEDGED)
            if action == "wait":
                continue
            try:
                broker.send_canary(self._name)
                self._canary.note_sent(now)
            except Exception as error:  # noqa: BLE001 the top of this thread
                logger.warning("no canary could be sent (%s)", error)
                self._canary.note_failure(now)

    # Drain and stop

    def _on_stop_signal(self, number: int) -> None:
        """Drain on every signal that asks the worker to stop; SIGQUIT and a second Ctrl-C do not wait for running jobs."""
        if number == signal.SIGQUIT or (number == signal.SIGINT and self._draining.is_set()):
            self._hurried = True
        signal.raise_signal(signal.SIGTERM)  # Celery's warm shutdown, which calls `_on_stop_request`

    def _on_stop_request(self, **_: Any) -> None:
        self._stop_requested = True
        self._begin_drain()
        # This is a signal handler, which Celery's loop does not notice by itself.
        threading.Thread(target=_wake_celery, name="wake", daemon=True).start()

    def _begin_drain(self) -> None:
        seconds = 0.0 if self._hurried else self._settings.drain_seconds
        logger.info("%s drains: it takes no new jobs, and requeues those that still run in %.0f s", self._name, seconds)
        notify("STOPPING=1" if self._stop_requested else "STATUS=draining")
        self._draining.set()
        if self._drain_children is not None and self._hurry_children is not None:
            self._drain_children.set()
            if self._hurried:
                self._hurry_children.set()
        if self._runtime is not None:
            self._runtime.begin_drain(seconds)

    def _drain_with_worker(self) -> None:
        assert self._drain_children is not None
        assert self._hurry_children is not None
        self._drain_children.wait()
        if self._runtime is not None:
            self._runtime.begin_drain(self._settings.drain_seconds)
        self._hurry_children.wait()
        if self._runtime is not None:
            self._runtime.begin_drain(0)

    def _on_worker_exit(self, **_: Any) -> None:
        self._draining.set()
        self._stopping.set()
        self._on_child_exit()
        if self._name_holder is not None:
            self._name_holder.give_up()

    def _on_child_exit(self, **_: Any) -> None:
        if self._runtime is not None:
            self._pool.on_stop()
            self._runtime.shut_down()
