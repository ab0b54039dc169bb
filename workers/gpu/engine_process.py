"""A worker's handle on its engine process: it starts it, feeds it, watches it, and starts it again when it dies.

Every request that was taken ends exactly once, as ``lost`` if its process went away. It knows nothing of jobs or text;
what a lost request means is for its owner to say.
"""

import logging
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

from shared.errors import EngineFault, ModelUnavailable
from shared.models.catalogue import ModelEntry
from shared.settings import REPOSITORY, Settings
from workers.gpu.messages import Beat, Cancel, Message, Phase, State, Step, Submit, decode, encode

log = logging.getLogger("engine_process")

FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0
FIRST_BACK_OFF_UNLOADABLE, LONGEST_BACK_OFF_UNLOADABLE = 30.0, 600.0
# A process that was killed while loading was most likely killed for want of memory, and will be again.
DEATHS_WHILE_LOADING = 3


@dataclass(frozen=True)
class EngineState:
    """``since`` is the monotonic time at which ``phase`` began. ``fraction`` is of that phase, 0 to 1."""

    phase: Phase | Literal["stopped"]
    message: str
    fraction: float
    since: float


class EngineProcess:
    """One engine process at a time for one model. Every method may be called from any thread.

    ``on_step`` gets each step, ``on_state`` each change of state; both are called by the receiving thread, one call at a
    time, and must not block. ``device`` is the value of ``CUDA_VISIBLE_DEVICES`` for the process. ``hang_seconds`` is how
    long it may be silent, or hold requests without a step, before it is killed.
    """

    def __init__(
        self,
        entry: ModelEntry,
        settings: Settings,
        *,
        device: str | None = None,
        on_step: Callable[[Step], None],
        on_state: Callable[[EngineState], None] | None = None,
        hang_seconds: float = 60.0,
        token_seconds: float = 0.0,
    ) -> None:
        self._entry = entry
        self._settings = settings
        self._device = device
        self._on_step = on_step
        self._on_state = on_state
        self._hang_seconds = hang_seconds
        self._token_seconds = token_seconds
        self._changed = threading.Condition()
        self._state = EngineState("loading", "not started", 0.0, time.monotonic())
        self._outstanding: set[str] = set()
        self._connection: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._beat: Beat | None = None
        self._closing = threading.Event()
        self._sending = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name=f"engine-{entry.name}", daemon=True)

    @property
    def state(self) -> EngineState:
        """What the process is doing now."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Of the present process; None between two."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def beat(self) -> Beat | None:
        """The last sign of life of the present process; None before its first."""
        return self._beat

    def start(self) -> None:
        """Start the process and return at once; ``wait_ready`` waits for it."""
        self._keeper.start()

    def wait_ready(self, timeout: float) -> None:
        """Return once requests are taken. Raises ModelUnavailable (with its reason) or EngineFault when ``timeout`` is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.phase not in ("loading", "warming"), timeout)
            self._require_ready()

    def submit(self, request: Submit, *, timeout: float = 0.0) -> None:
        """Give a request to the engine, waiting up to ``timeout`` seconds for one that is still loading.

        Raises ModelUnavailable when the model could not be loaded, EngineFault when it is not ready in time; else the
        request ends by ``on_step``, exactly once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state.phase not in ("loading", "warming"), timeout)
            self._require_ready()
            if request.id in self._outstanding:
                raise EngineFault(f"A request with the id {request.id} is running on {self._entry.name} already.")
            self._outstanding.add(request.id)
            connection = self._connection
        self._send(connection, request)

    def cancel(self, id: str) -> None:
        """Ask for the end of a request; it comes by ``on_step``. One that has ended already is left alone."""
        with self._changed:
            if id not in self._outstanding:
                return
            connection = self._connection
        self._send(connection, Cancel(id))

    def close(self, timeout: float = 5.0) -> None:
        """End the process; what is still running ends as ``lost``. Returns when it is gone."""
        self._closing.set()
        _hang_up(self._connection)
        if self._keeper.is_alive() and self._keeper is not threading.current_thread():
            self._keeper.join(timeout)
            process = self._process
            if process is not None and process.poll() is None:
                process.kill()
            self._keeper.join(timeout)

    def _require_ready(self) -> None:
        state, name = self._state, self._entry.name
        if state.phase == "failed":
            raise ModelUnavailable(f"Model {name} could not be loaded: {state.message}")
        if state.phase == "stopped":
            raise EngineFault(f"The engine of {name} has been stopped.")
        if state.phase != "ready":
            raise EngineFault(f"The engine of {name} is not ready yet: {state.phase}, {state.message}.")

    def _send(self, connection: Connection | None, message: Message) -> None:
        if connection is None:
            return
        try:
            with self._sending:
                connection.send_bytes(encode(message))
        except OSError:
            # The process is going, or has read nothing for so long that half a message may be stuck in the pipe. Nothing
            # after that could be understood, so this life ends; the keeper reports as lost what the process held.
            _hang_up(connection)

    # The keeper's thread. It starts the process too: the kernel ties a child's death signal to the thread that started it.

    def _keep(self) -> None:
        back_off, unloadable_back_off, deaths_while_loading = FIRST_BACK_OFF, FIRST_BACK_OFF_UNLOADABLE, 0
        while not self._closing.is_set():
            try:
                ready_for, reason = self._live_once()
            except Exception as error:
                log.exception("engine of %s: its keeper met a fault", self._entry.name)
                ready_for, reason = None, f"its keeper met {error.__class__.__name__}: {error}"
                self._bury()
            if self._closing.is_set():
                break
            deaths_while_loading = deaths_while_loading + 1 if ready_for is None else 0
            if ready_for is not None:
                unloadable_back_off = FIRST_BACK_OFF_UNLOADABLE
                back_off = FIRST_BACK_OFF if ready_for > LONGEST_BACK_OFF else back_off
            if self._state.phase == "failed" or deaths_while_loading >= DEATHS_WHILE_LOADING:
                pause, unloadable_back_off = unloadable_back_off, min(unloadable_back_off * 2, LONGEST_BACK_OFF_UNLOADABLE)
                phase: Phase = "failed"
            else:
                pause, back_off = back_off, min(back_off * 2, LONGEST_BACK_OFF)
                phase = "loading"
            log.error("engine of %s: %s; starting again in %.1f s", self._entry.name, reason, pause)
            self._end_life(phase, reason)
            self._closing.wait(pause)
        self._end_life("stopped", "the worker has stopped it")

    def _live_once(self) -> tuple[float | None, str]:
        """One life of the process: how long it was ready (None: never), and why it ended."""
        self._spawn()
        ready_since: float | None = None
        last_sign = last_advance = time.monotonic()
        reason = ""
        while not reason and not self._closing.is_set():
            try:
                message = self._receive(timeout=min(1.0, self._hang_seconds / 4))
            except (EOFError, OSError):
                break
            now = time.monotonic()
            if message is not None:
                last_sign = now
            if isinstance(message, Step):
                last_advance = now
                self._deliver(message)
            elif isinstance(message, Beat):
                # Steps that read a long prompt give no tokens; only this tells of them.
                if message.running + message.waiting == 0 or self._beat is None or message.steps != self._beat.steps:
                    last_advance = now
                self._beat = message
            elif isinstance(message, State):
                if message.phase == "failed":
                    reason = message.message
                if message.phase == "ready":
                    ready_since = last_advance = now
                # A process that served and then failed is started again at once: the model can be loaded.
                if message.phase != "failed" or ready_since is None:
                    self._set_state(message.phase, message.message, message.fraction)
            if now - last_sign > self._hang_seconds:
                reason = f"it gave no sign of life for {self._hang_seconds:.0f} s"
            elif ready_since is not None and now - last_advance > self._hang_seconds:
                reason = f"it held requests and made no step for {self._hang_seconds:.0f} s"
        ended = self._bury()
        return (None if ready_since is None else time.monotonic() - ready_since), reason or ended

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        # A process that reads nothing must not hold its senders for longer than it may be silent.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", math.ceil(self._hang_seconds), 0))
        settings = self._settings
        command = [sys.executable, "-m", "workers.gpu.engine", "--model", self._entry.name]
        command += ["--models-file", str(settings.models_file.resolve()), "--prepared", str(settings.prepared_models.resolve())]
        command += ["--engine", settings.engine, "--connection", str(theirs.fileno()), "--log-level", settings.log_level]
        command += ["--token-seconds", str(self._token_seconds)]
        environment = dict(os.environ)
        if self._device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self._device
        self._set_state("loading", "starting the engine process", 0.0)
        with theirs:
            process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment, cwd=REPOSITORY
            )
        with self._changed:
            self._process, self._connection, self._beat = process, Connection(ours.detach()), None
        log.info("engine of %s started as process %d", self._entry.name, process.pid)

    def _receive(self, timeout: float) -> Message | None:
        assert self._connection is not None
        return decode(self._connection.recv_bytes()) if self._connection.poll(timeout) else None

    def _deliver(self, step: Step) -> None:
        with self._changed:
            self._outstanding.difference_update(id for id, _, _ in step.finished)
        self._on_step(step)

    def _bury(self) -> str:
        """Make sure that the process is gone; says how it went."""
        process = self._process
        if process is None:
            return "it could not be started"
        _hang_up(self._connection)
        try:
            status = process.wait(0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        return f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"

    def _end_life(self, phase: Phase | Literal["stopped"], reason: str) -> None:
        """No request is taken from here on, so those told as lost are all there are."""
        with self._changed:
            self._connection, self._process, self._beat = None, None, None
            lost, self._outstanding = sorted(self._outstanding), set()
            self._change_state(phase, reason, 0.0)
        if lost:
            self._on_step(Step([], [(id, "lost", f"the engine process is gone: {reason}") for id in lost]))
        self._tell_state()

    def _set_state(self, phase: Phase, message: str, fraction: float) -> None:
        with self._changed:
            self._change_state(phase, message, fraction)
        self._tell_state()

    def _change_state(self, phase: Phase | Literal["stopped"], message: str, fraction: float) -> None:
        since = self._state.since if self._state.phase == phase else time.monotonic()
        self._state = EngineState(phase, message, fraction, since)
        self._changed.notify_all()

    def _tell_state(self) -> None:
        if self._on_state is not None:
            self._on_state(self._state)


def _hang_up(connection: Connection | None) -> None:
    """Half of closing: both sides read the end, while the descriptor stays valid for threads that still use it."""
    if connection is not None:
        try:
            with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has hung up already
