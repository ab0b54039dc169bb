"""Engine supervisor: keeps one engine process of a model running, and replaces it when it exits or hangs."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

from workers.gpu.engine.messages import Heartbeat, Message, Phase, PhaseUpdate, StepOutput
from workers.gpu.engine_client.engine_connection import EngineConnection
from workers.gpu.engine_client.restart_policy import ProcessExit, Restart, RestartPolicy
from workers.gpu.engine_client.watchdog import Watchdog

logger = logging.getLogger("engine_process")

EnginePhase = Phase | Literal["stalled", "stopped"]


class RequestOwner(Protocol):
    """Owner of the requests that the process works on; the supervisor reports to it from its own thread."""

    @property
    def in_flight(self) -> int:
        """How many requests the process holds."""
        ...

    def phase_changed(self, phase: EnginePhase, message: str, fraction: float) -> None:
        """The process, or its supervisor, has entered a phase or progressed within it."""
        ...

    def step_received(self, output: StepOutput) -> None:
        """The process has completed a step."""
        ...

    def try_resize(self, limit: int, reason: str) -> bool:
        """Stop admitting requests and return True, unless there are any."""
        ...

    def process_exited(self, exit: ProcessExit, restart: Restart, limit: int) -> None:
        """The process is gone; the next one may hold ``limit`` requests."""
        ...

    def supervision_ended(self, reason: str) -> None:
        """No process will follow."""
        ...


class EngineSupervisor:
    """Runs processes one after the other in a thread of its own.

    ``connect`` starts a process that may hold the given number of requests. A process that is silent, or holds requests
    without completing a step, is reported as stalled after half of ``hang_seconds`` and killed after all of it.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[int], EngineConnection],
        owner: RequestOwner,
        policy: RestartPolicy,
        *,
        hang_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._connect = connect
        self._owner = owner
        self._policy = policy
        self._hang_seconds = hang_seconds
        self._clock = clock
        self._phase: EnginePhase = "loading"
        self._closing = threading.Event()
        # The kernel ties the engine process to the thread that starts it, so one thread does both.
        self._thread = threading.Thread(target=self._supervise, name=f"engine-{name}", daemon=True)
        self.connection: EngineConnection | None = None
        """The connection to the current process; None between two processes."""
        self.heartbeat: Heartbeat | None = None
        """The last heartbeat of the current process; None before its first."""
        self.attention_backend = ""
        """The attention backend of the last process that was ready."""
        self.max_context = 0
        """The context of that process; 0 if none was ready yet."""

    def launch(self) -> None:
        """Start the first process and return at once."""
        self._thread.start()

    def terminate(self, timeout: float) -> None:
        """End the process and the thread. Returns when both are gone."""
        self._closing.set()
        connection = self.connection
        if connection is not None:
            connection.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            connection = self.connection
            if connection is not None:
                connection.kill()
            self._thread.join(timeout)

    def _supervise(self) -> None:
        while not self._closing.is_set():
            self._closing.wait(self.supervise_once())
        self._owner.supervision_ended("the worker stopped it")

    def supervise_once(self) -> float:
        """Run one process to its end; returns the seconds to wait before the next."""
        try:
            exit = self._run_process()
        except Exception as error:
            logger.exception("engine of %s: its supervisor failed", self._name)
            exit = ProcessExit(f"its supervisor failed: {error.__class__.__name__}: {error}")
            if self.connection is not None:
                self.connection.wait_for_exit()
        self.connection, self.heartbeat = None, None
        if self._closing.is_set():
            return 0.0
        restart = self._policy.decide(exit, in_flight=self._owner.in_flight, now=self._clock())
        self._owner.process_exited(exit, restart, self._policy.limit)
        return restart.delay_seconds

    def _run_process(self) -> ProcessExit:
        self._set_phase("loading", "starting the engine process", 0.0)
        self.heartbeat = None
        self.connection = connection = self._connect(self._policy.limit)
        watchdog = Watchdog(self._clock())
        ready_at: float | None = None
        exit: ProcessExit | None = None
        while exit is None and not self._closing.is_set():
            try:
                message = connection.receive_message(min(1.0, self._hang_seconds / 4))
            except (EOFError, OSError):
                break
            now = self._clock()
            if isinstance(message, PhaseUpdate) and message.phase == "ready":
                ready_at = now
            exit = self._handle(message, ready=ready_at is not None)
            watchdog.observe(message, holds_requests=self._owner.in_flight > 0, now=now)
            exit = exit or self._check(watchdog, now, ready=ready_at is not None)
        description = connection.wait_for_exit()
        served = None if ready_at is None else self._clock() - ready_at
        return replace(exit or ProcessExit(description), served_seconds=served)

    def _handle(self, message: Message | None, *, ready: bool) -> ProcessExit | None:
        if isinstance(message, StepOutput):
            self._owner.step_received(message)
        elif isinstance(message, Heartbeat):
            self.heartbeat = message
        elif isinstance(message, PhaseUpdate) and message.phase == "failed":
            # With the weights in memory, a smaller batch may be enough.
            if message.out_of_memory and (ready or (self._phase == "warming" and self._policy.limit > 1)):
                return ProcessExit(message.message, "out_of_memory")
            # A process that failed after it was ready is a crash: the model can be loaded.
            return ProcessExit(message.message, "crash" if ready else "unloadable")
        elif isinstance(message, PhaseUpdate):
            self.attention_backend = message.attention_backend or self.attention_backend
            self.max_context = message.max_context or self.max_context
            self._set_phase(message.phase, message.message or self._policy.note, message.fraction)
        return None

    def _check(self, watchdog: Watchdog, now: float, *, ready: bool) -> ProcessExit | None:
        """Decide whether the process may continue."""
        seconds, problem = watchdog.stalled_for(now)
        if seconds > self._hang_seconds:
            return ProcessExit(f"it {problem} for {self._hang_seconds:.0f} s")
        if not ready:
            return None
        if seconds > self._hang_seconds / 2:
            self._set_phase(
                "stalled",
                f"it {problem} for {seconds:.0f} s, with {self._owner.in_flight} requests in flight; "
                f"it will be killed and restarted at {self._hang_seconds:.0f} s",
                1.0,
            )
            return None
        if self._phase == "stalled":
            self._set_phase("ready", self._policy.note, 1.0)
            return None
        limit = self._policy.larger_limit(now)
        if limit is not None:
            reason = f"memory has been sufficient for a while, so it restarts to run {limit} requests at once"
            if self._owner.try_resize(limit, reason):
                self._policy.raise_limit(limit, now)
                return ProcessExit(reason, "resize")
        return None

    def _set_phase(self, phase: EnginePhase, message: str, fraction: float) -> None:
        self._phase = phase
        self._owner.phase_changed(phase, message, fraction)
