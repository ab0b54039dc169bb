"""Client of one model's engine process: submits requests, cancels them, and reports the engine's state.

Every request that is accepted finishes exactly once. If its process exits it finishes as ``lost``, except when memory ran
out: then it continues in the next process, among fewer requests.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.errors import EngineFault, ModelUnavailable
from shared.models.catalogue import ModelEntry
from shared.settings import Settings
from workers.gpu.engine.messages import CancelRequest, GenerationRequest, Heartbeat, StepOutput
from workers.gpu.engine_client.engine_connection import EngineConnection, ProcessConnection
from workers.gpu.engine_client.engine_supervisor import EnginePhase, EngineSupervisor
from workers.gpu.engine_client.in_flight_requests import InFlightRequests
from workers.gpu.engine_client.restart_policy import QUIET_SECONDS, ProcessExit, Restart, RestartPolicy

logger = logging.getLogger("engine_process")


@dataclass(frozen=True)
class EngineState:
    """``since`` is the monotonic time at which ``phase`` began; ``fraction`` is the progress of that phase, 0 to 1.

    ``stalled``: the process has been silent, or has held requests without completing a step, for half of the time after
    which it is killed.
    """

    phase: EnginePhase
    message: str
    fraction: float
    since: float


def load_error(name: str, reason: str) -> ModelUnavailable:
    """The error of jobs whose model could not be loaded. ``reason`` may be a sentence about the model that begins with its name."""
    for own_name, replacement in ((f"Model {name}: ", ""), (f"Model {name} ", "it ")):
        if reason.startswith(own_name):
            reason = replacement + reason.removeprefix(own_name)
    reason = reason.rstrip(". ")
    return ModelUnavailable(f"Model {name} could not be loaded: {reason}. Submit the job again when that is corrected.")


class EngineClient:
    """One engine process at a time for one model. Every method may be called from any thread.

    ``on_step`` receives each step and ``on_state`` each change of state; calls are serialized, come mostly from the
    supervisor's thread, and must not block. ``device`` is the ``CUDA_VISIBLE_DEVICES`` of the process. ``quiet_seconds`` is
    how long memory must have been sufficient before more requests at once are tried. ``ranks`` is the number of processes
    that the model is spread over, by default one per GPU of the entry. ``connect`` replaces the engine process in tests.
    """

    def __init__(
        self,
        entry: ModelEntry,
        settings: Settings,
        *,
        device: str | None = None,
        on_step: Callable[[StepOutput], None],
        on_state: Callable[[EngineState], None] | None = None,
        token_seconds: float = 0.0,
        quiet_seconds: float = QUIET_SECONDS,
        ranks: int = 0,
        connect: Callable[[int], EngineConnection] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        def start_process(in_flight: int) -> EngineConnection:
            return ProcessConnection(
                entry,
                settings,
                device=device,
                in_flight=in_flight,
                token_seconds=token_seconds,
                ranks=ranks or max(1, entry.gpus),
            )

        self._name = entry.name
        self._on_step = on_step
        self._on_state = on_state
        self._clock = clock
        self.restarts = 0
        self._changed = threading.Condition()
        self._state = EngineState("loading", "not started", 0.0, clock())
        self._requests = InFlightRequests(entry.max_in_flight)
        # A step may end a generation early, and the cancel comes back here on the same thread.
        self._delivering = threading.RLock()
        self.supervisor = EngineSupervisor(
            entry.name,
            connect or start_process,
            self,
            RestartPolicy(entry.max_in_flight, quiet_seconds),
            hang_seconds=settings.engine_hang_seconds,
            clock=clock,
        )

    @property
    def state(self) -> EngineState:
        """What the engine is doing now."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Id of the current process; None between two."""
        connection = self.supervisor.connection
        return connection.pid if connection is not None else None

    @property
    def last_heartbeat(self) -> Heartbeat | None:
        """The last heartbeat of the current process; None before its first."""
        return self.supervisor.heartbeat

    @property
    def limit(self) -> int:
        """How many requests run at once: the entry's ``max_in_flight``, or fewer after memory ran out."""
        return self._requests.limit

    @property
    def in_flight(self) -> int:
        """How many requests the process holds."""
        return self._requests.in_flight

    def start_engine(self) -> None:
        """Start the process and return at once; ``wait_ready`` waits for it."""
        self.supervisor.launch()

    def stop_engine(self, timeout: float = 5.0) -> None:
        """End the process; requests that are still running finish as ``lost``. Returns when it is gone."""
        self.supervisor.terminate(timeout)

    def wait_ready(self, timeout: float) -> None:
        """Wait until requests are accepted. Raises ModelUnavailable when the model cannot be loaded, EngineFault on timeout."""
        with self._changed:
            self._changed.wait_for(self._is_settled, timeout)
            self._require_ready()

    def submit_request(self, request: GenerationRequest, *, timeout: float = 0.0) -> None:
        """Submit a request, waiting up to ``timeout`` seconds for an engine that is still loading.

        Raises ModelUnavailable when the model cannot be loaded, EngineFault when the engine is not ready in time. Otherwise
        the request finishes through ``on_step``, exactly once.
        """
        with self._changed:
            self._changed.wait_for(self._is_settled, timeout)
            self._require_ready()
            if request.id in self._requests:
                raise EngineFault(f"Model {self._name} is already running a request with id {request.id}.")
            self._requests.enqueue(request)
            connection, admitted = self._admit()
        self._send(connection, admitted)

    def cancel_request(self, id: str) -> None:
        """Cancel a request; it finishes through ``on_step``. Has no effect on a request that has finished."""
        with self._changed:
            was_waiting = self._requests.cancel(id)
            connection = self.supervisor.connection if self._requests.is_cancelled(id) else None
        if was_waiting:
            self._deliver(StepOutput([], [(id, "cancelled", "")]))
        if connection is not None:
            connection.send_message(CancelRequest(id))

    def _is_settled(self) -> bool:
        return self._state.phase in ("ready", "failed", "stopped")

    def _require_ready(self) -> None:
        state, name = self._state, self._name
        if state.phase == "failed":
            raise load_error(name, state.message)
        if state.phase == "stopped":
            raise EngineFault(f"The engine of {name} has been stopped.")
        if state.phase != "ready":
            raise EngineFault(f"The engine of {name} is not ready: {state.phase}, {state.message}.")

    def _send_admitted(self) -> None:
        """Send waiting requests to the process as far as the limit allows."""
        with self._changed:
            connection, admitted = self._admit()
        self._send(connection, admitted)

    def _admit(self) -> tuple[EngineConnection | None, list[GenerationRequest]]:
        connection = self.supervisor.connection if self._state.phase in ("ready", "stalled") else None
        return connection, self._requests.admit() if connection is not None else []

    def _send(self, connection: EngineConnection | None, admitted: list[GenerationRequest]) -> None:
        for request in admitted:
            assert connection is not None
            connection.send_message(request)
            if self._requests.is_cancelled(request.id):
                # The cancel may have been sent ahead of the request, and then ignored as unknown.
                connection.send_message(CancelRequest(request.id))

    # Called by the supervisor

    def phase_changed(self, phase: EnginePhase, message: str, fraction: float) -> None:
        with self._changed:
            self._change_state(phase, message, fraction)
        self._report_state()
        self._send_admitted()

    def step_received(self, output: StepOutput) -> None:
        with self._changed:
            self._requests.record_step(output)
        self._deliver(output)
        if output.finished:
            self._send_admitted()

    def try_resize(self, limit: int, reason: str) -> bool:
        # Under one lock, so that no request is accepted by a process that is about to end.
        with self._changed:
            if not self._requests.is_empty:
                return False
            self._requests.limit = limit
            self._change_state("loading", reason, 0.0)
            return True

    def process_exited(self, exit: ProcessExit, restart: Restart, limit: int) -> None:
        """Finish or requeue what the process held. No request is accepted until the next process is ready."""
        reason = exit.reason
        with self._changed:
            held = self._requests.in_flight
            self._requests.limit = limit
            if exit.cause == "out_of_memory":
                finished = self._requests.requeue_after_out_of_memory(reason)
                reason = f"out of memory with {held} requests in flight ({reason}); continuing with {limit} at once"
            else:
                finished = self._requests.lose_in_flight(f"the engine process is gone: {reason}")
            if restart.give_up:
                finished += self._requests.lose_all(f"the engine process is gone: {reason}")
            self._change_state("failed" if restart.give_up else "loading", reason, 0.0)
        if finished:
            self._deliver(StepOutput([], sorted(finished)))
        self._report_state()
        self.restarts += exit.cause != "resize"
        level = logging.INFO if exit.cause == "resize" else logging.ERROR
        logger.log(level, "engine of %s: %s; restarting in %.1f s", self._name, reason, restart.delay_seconds)

    def supervision_ended(self, reason: str) -> None:
        with self._changed:
            finished = self._requests.lose_all(f"the engine process is gone: {reason}")
            self._change_state("stopped", reason, 0.0)
        if finished:
            self._deliver(StepOutput([], sorted(finished)))
        self._report_state()

    def _change_state(self, phase: EnginePhase, message: str, fraction: float) -> None:
        since = self._state.since if self._state.phase == phase else self._clock()
        self._state = EngineState(phase, message, fraction, since)
        self._changed.notify_all()

    def _deliver(self, output: StepOutput) -> None:
        with self._delivering:
            self._on_step(output)

    def _report_state(self) -> None:
        if self._on_state is not None:
            self._on_state(self._state)
