"""A worker's handle on its engine process: it starts it, feeds it, watches it, and starts it again when it dies.

Every request that was taken ends exactly once: as ``lost`` if its process went away, unless that was for want of memory;
then it goes on in the next process, among fewer. It knows nothing of jobs or text.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shared.errors import EngineFault, ModelUnavailable
from shared.models.catalogue import ModelEntry
from shared.settings import Settings
from workers.gpu.engine.messages import CancelRequest, GenerationRequest, Heartbeat, Message, Phase, State, StepOutput
from workers.gpu.engine_client.engine_connection import EngineConnection, Watchdog
from workers.gpu.engine_client.in_flight_requests import QUIET_SECONDS, InFlightRequests

log = logging.getLogger("engine_process")

FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0
FIRST_BACK_OFF_UNLOADABLE, LONGEST_BACK_OFF_UNLOADABLE = 30.0, 600.0
# A process that was killed while loading was most likely killed for want of memory, and will be again.
DEATHS_WHILE_LOADING = 3


EnginePhase = Phase | Literal["stalled", "stopped"]


@dataclass(frozen=True)
class EngineState:
    """``since`` is the monotonic time at which ``phase`` began. ``fraction`` is of that phase, 0 to 1.

    ``stalled``: it has been silent, or has held requests without a step, for half of the time after which it is killed.
    """

    phase: EnginePhase
    message: str
    fraction: float
    since: float


@dataclass
class _Death:
    """How a life ended. ``served`` is for how many seconds it was ready, None for never."""

    reason: str = ""
    served: float | None = None
    unloadable: bool = False
    out_of_memory: bool = False
    to_grow: bool = False


class EngineClient:
    """One engine process at a time for one model. Every method may be called from any thread.

    ``on_step`` gets each step, ``on_state`` each change of state; both are called one call at a time, mostly by the
    receiving thread, and must not block. ``device`` is the value of ``CUDA_VISIBLE_DEVICES`` for the process. A process
    that is silent, or holds requests without a step, for ``engine_hang_seconds`` of the settings is killed.
    ``quiet_seconds`` is how long memory must have been enough before more requests at once are tried.
    ``ranks`` is how many processes the model is spread over; by default one for each GPU of the entry.
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
    ) -> None:
        self._entry = entry
        self._settings = settings
        self._device = device
        self._on_step = on_step
        self._on_state = on_state
        self._token_seconds = token_seconds
        self._ranks = ranks or max(1, entry.gpus)
        self._changed = threading.Condition()
        self._state = EngineState("loading", "not started", 0.0, time.monotonic())
        self._admission = InFlightRequests(entry.max_in_flight, quiet_seconds)
        self._life: EngineConnection | None = None
        self._beat: Heartbeat | None = None
        self._attention = ""
        self._closing = threading.Event()
        # A step may end an answer early, whose cancel comes back here from the same thread.
        self._telling = threading.RLock()
        self._keeper = threading.Thread(target=self._keep, name=f"engine-{entry.name}", daemon=True)

    @property
    def state(self) -> EngineState:
        """What the process is doing now."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Of the present process; None between two."""
        life = self._life
        return life.pid if life is not None else None

    @property
    def beat(self) -> Heartbeat | None:
        """The last sign of life of the present process; None before its first."""
        return self._beat

    @property
    def attention(self) -> str:
        """The kernel that it attends by; empty before it was ready."""
        return self._attention

    @property
    def limit(self) -> int:
        """How many requests it runs at once: the entry's ``max_in_flight``, or fewer after memory ran out."""
        return self._admission.limit

    def start(self) -> None:
        """Start the process and return at once; ``wait_ready`` waits for it."""
        self._keeper.start()

    def wait_ready(self, timeout: float) -> None:
        """Return once requests are taken. Raises ModelUnavailable (with its reason) or EngineFault when ``timeout`` is over."""
        with self._changed:
            self._changed.wait_for(self._is_settled, timeout)
            self._require_ready()

    def submit(self, request: GenerationRequest, *, timeout: float = 0.0) -> None:
        """Give a request to the engine, waiting up to ``timeout`` seconds for one that is still loading.

        Raises ModelUnavailable when the model could not be loaded, EngineFault when it is not ready in time; else the
        request ends by ``on_step``, exactly once.
        """
        with self._changed:
            self._changed.wait_for(self._is_settled, timeout)
            self._require_ready()
            if request.id in self._admission:
                raise EngineFault(f"A request with the id {request.id} is running on {self._entry.name} already.")
            self._admission.add(request)
        self._feed()

    def cancel(self, id: str) -> None:
        """Ask for the end of a request; it comes by ``on_step``. One that has ended already is left alone."""
        with self._changed:
            waited = self._admission.cancel(id)
            life = self._life if self._admission.is_cancelled(id) else None
        if waited:
            self._tell_step(StepOutput([], [(id, "cancelled", "")]))
        if life is not None:
            life.send(CancelRequest(id))

    def close(self, timeout: float = 5.0) -> None:
        """End the process; what is still running ends as ``lost``. Returns when it is gone."""
        self._closing.set()
        life = self._life
        if life is not None:
            life.hang_up()
        if self._keeper.is_alive() and self._keeper is not threading.current_thread():
            self._keeper.join(timeout)
            if self._life is not None:
                self._life.kill()
            self._keeper.join(timeout)

    def _is_settled(self) -> bool:
        return self._state.phase in ("ready", "failed", "stopped")

    def _require_ready(self) -> None:
        state, name = self._state, self._entry.name
        if state.phase == "failed":
            raise ModelUnavailable(f"Model {name} could not be loaded: {state.message}")
        if state.phase == "stopped":
            raise EngineFault(f"The engine of {name} has been stopped.")
        if state.phase != "ready":
            raise EngineFault(f"The engine of {name} is not ready yet: {state.phase}, {state.message}.")

    def _feed(self) -> None:
        """Give the engine what it may hold beside what it holds."""
        with self._changed:
            life = self._life if self._state.phase in ("ready", "stalled") else None
            admitted = self._admission.admit() if life is not None else []
        for request in admitted:
            assert life is not None
            life.send(request)
            if self._admission.is_cancelled(request.id):
                # The wish may have gone out ahead of the request, as one that the engine knew nothing of.
                life.send(CancelRequest(request.id))

    # The keeper's thread. It starts the process too: the kernel ties a child's death signal to the thread that started it.

    def _keep(self) -> None:
        back_off, unloadable_back_off, deaths_while_loading = FIRST_BACK_OFF, FIRST_BACK_OFF_UNLOADABLE, 0
        while not self._closing.is_set():
            try:
                death = self._live_once()
            except Exception as error:
                log.exception("engine of %s: its keeper met a fault", self._entry.name)
                death = _Death(f"its keeper met {error.__class__.__name__}: {error}")
                if self._life is not None:
                    self._life.bury()
            if self._closing.is_set():
                break
            deaths_while_loading = deaths_while_loading + 1 if death.served is None else 0
            if death.served is not None:
                unloadable_back_off = FIRST_BACK_OFF_UNLOADABLE
                back_off = FIRST_BACK_OFF if death.served > LONGEST_BACK_OFF else back_off
            phase: Phase = "loading"
            if death.to_grow or death.out_of_memory:
                pause = 0.0 if death.to_grow else FIRST_BACK_OFF
            elif death.unloadable or deaths_while_loading >= DEATHS_WHILE_LOADING:
                pause, unloadable_back_off = unloadable_back_off, min(unloadable_back_off * 2, LONGEST_BACK_OFF_UNLOADABLE)
                phase = "failed"
            else:
                pause, back_off = back_off, min(back_off * 2, LONGEST_BACK_OFF)
            self._end_life(phase, death)
            level = logging.INFO if death.to_grow else logging.ERROR
            log.log(level, "engine of %s: %s; starting again in %.1f s", self._entry.name, self._state.message, pause)
            self._closing.wait(pause)
        self._end_life("stopped", _Death("the worker has stopped it"))

    def _live_once(self) -> _Death:
        self._set_state("loading", "starting the engine process", 0.0)
        life = EngineConnection(
            self._entry,
            self._settings,
            device=self._device,
            in_flight=self.limit,
            token_seconds=self._token_seconds,
            ranks=self._ranks,
        )
        with self._changed:
            self._life, self._beat = life, None
        death, ready_since = _Death(), 0.0
        watchdog = Watchdog(time.monotonic())
        while not death.reason and not self._closing.is_set():
            try:
                message = life.receive(timeout=min(1.0, self._settings.engine_hang_seconds / 4))
            except (EOFError, OSError):
                break
            now = time.monotonic()
            if isinstance(message, State) and message.phase == "ready":
                ready_since = now
            self._hear(message, death, loaded=bool(ready_since))
            watchdog.saw(message, self._admission.in_flight > 0, now)
            self._judge(watchdog, death, now, loaded=bool(ready_since))
        ended = life.bury()
        death.reason = death.reason or ended
        death.served = time.monotonic() - ready_since if ready_since else None
        return death

    def _hear(self, message: Message | None, death: _Death, *, loaded: bool) -> None:
        if isinstance(message, StepOutput):
            with self._changed:
                self._admission.take(message)
            self._tell_step(message)
            if message.finished:
                self._feed()
        elif isinstance(message, Heartbeat):
            self._beat = message
        elif isinstance(message, State) and message.phase == "failed":
            death.reason = message.message
            # With the model's weights in memory, a smaller batch may be all that it takes.
            death.out_of_memory = message.out_of_memory and (loaded or (self._state.phase == "warming" and self.limit > 1))
            # A process that served and then failed is started again at once: the model can be loaded.
            death.unloadable = not loaded and not death.out_of_memory
        elif isinstance(message, State):
            self._attention = message.attention or self._attention
            self._set_state(message.phase, message.message or self._admission.note, message.fraction)
            self._feed()

    def _judge(self, watchdog: Watchdog, death: _Death, now: float, *, loaded: bool) -> None:
        """Whether the process should live on."""
        patience = self._settings.engine_hang_seconds
        seconds, what = watchdog.hanging(now)
        if death.reason:
            return
        if seconds > patience:
            death.reason = f"it {what} for {patience:.0f} s"
        elif loaded and seconds > patience / 2:
            held = self._admission.in_flight
            told = f"it {what} for {seconds:.0f} s, with {held} requests in flight; at {patience:.0f} s it is killed and started again"
            self._set_state("stalled", told, 1.0)
        elif self._state.phase == "stalled":
            self._set_state("ready", self._admission.note, 1.0)
            self._feed()
        elif loaded:
            with self._changed:
                if self._admission.may_grow(now):
                    self._admission.grow(now)
                    death.to_grow = True
                    death.reason = f"memory has been enough for long, so {self.limit} requests at once are tried"
                    # In the same breath, so that no request is taken by a process that is about to end.
                    self._change_state("loading", death.reason, 0.0)

    def _end_life(self, phase: EnginePhase, death: _Death) -> None:
        """Say what became of the requests that the process held. No request is taken from here on until the next is ready."""
        now, reason = time.monotonic(), death.reason
        with self._changed:
            self._life, self._beat = None, None
            held = self._admission.in_flight
            if death.out_of_memory:
                ends = self._admission.out_of_memory(reason, now)
                reason = f"out of memory with {held} requests in flight ({reason}), so it goes on with {self.limit} at once"
            else:
                ends = self._admission.lose(f"the engine process is gone: {reason}")
            if phase in ("failed", "stopped"):
                ends += self._admission.lose_all(f"the engine process is gone: {reason}")
            self._change_state(phase, reason, 0.0)
        if ends:
            self._tell_step(StepOutput([], sorted(ends)))
        self._tell_state()

    def _set_state(self, phase: EnginePhase, message: str, fraction: float) -> None:
        with self._changed:
            self._change_state(phase, message, fraction)
        self._tell_state()

    def _change_state(self, phase: EnginePhase, message: str, fraction: float) -> None:
        since = self._state.since if self._state.phase == phase else time.monotonic()
        self._state = EngineState(phase, message, fraction, since)
        self._changed.notify_all()

    def _tell_step(self, step: StepOutput) -> None:
        with self._telling:
            self._on_step(step)

    def _tell_state(self) -> None:
        if self._on_state is not None:
            self._on_state(self._state)
