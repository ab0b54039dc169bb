"""One life of an engine process: its start, the connection to it, signs that it hangs, and its end.

It knows neither requests nor what comes after the end.
"""

import logging
import math
import os
import socket
import struct
import subprocess
import sys
import threading
from multiprocessing.connection import Connection

from shared.models.catalogue import ModelEntry
from shared.settings import Settings
from workers.gpu.engine.messages import Heartbeat, Message, State, StepOutput, decode, encode

log = logging.getLogger("engine_process")


class EngineConnection:
    """Starts the process. The kernel ties it to the thread that calls this: it is killed when that thread ends."""

    def __init__(
        self, entry: ModelEntry, settings: Settings, *, device: str | None, in_flight: int, token_seconds: float, ranks: int = 1
    ) -> None:
        ours, theirs = socket.socketpair()
        # A process that reads nothing must not hold its senders for longer than it may be silent.
        timeout = struct.pack("@ll", math.ceil(settings.engine_hang_seconds), 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        command = [sys.executable, "-m", "workers.gpu.engine", "--model", entry.name]
        command += ["--models-file", str(settings.models_file.resolve()), "--prepared", str(settings.prepared_models.resolve())]
        command += ["--compiled", str((settings.data_dir / "compiled").resolve())]
        command += ["--engine", settings.engine, "--connection", str(theirs.fileno()), "--log-level", settings.log_level]
        command += ["--in-flight", str(in_flight), "--token-seconds", str(token_seconds), "--ranks", str(ranks)]
        environment = dict(os.environ)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
            # CUDA would put the fastest first; NVML, nvidia-smi and people count by the bus.
            environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self._sending = threading.Lock()
        self._connection = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        log.info("engine of %s started as process %d", entry.name, self._process.pid)

    @property
    def pid(self) -> int | None:
        """None when the process has ended."""
        return self._process.pid if self._process.poll() is None else None

    def send(self, message: Message) -> None:
        """Give a message to the process, if it still takes any. Any thread may call this."""
        try:
            with self._sending:
                self._connection.send_bytes(encode(message))
        except OSError:
            # The process is going, or has read nothing for so long that half a message may be stuck in the pipe. Nothing
            # after that could be understood, so this life ends.
            self.hang_up()

    def receive(self, timeout: float) -> Message | None:
        """The next message, None if there is none in time. Raises EOFError or OSError when the process is gone."""
        return decode(self._connection.recv_bytes()) if self._connection.poll(timeout) else None

    def hang_up(self) -> None:
        """Half of closing: both sides read the end, while the descriptor stays valid for threads that still use it."""
        try:
            with socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has hung up already

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()

    def bury(self) -> str:
        """Make sure that the process is gone; says how it went."""
        self.hang_up()
        try:
            status = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"


class Watchdog:
    """Tells for how long a process has been silent, or has held requests without a step. Times are passed in, in seconds."""

    def __init__(self, now: float) -> None:
        self._sign = self._advance = now
        self._steps = -1
        self._ready = False

    def saw(self, message: Message | None, holding: bool, now: float) -> None:
        """Take note of a message, or of None for a while without any; ``holding``: whether it has requests to work on."""
        if message is not None:
            self._sign = now
        # Steps that read a long prompt give no tokens; only the beat tells of them.
        advanced = isinstance(message, Heartbeat) and message.steps != self._steps
        if isinstance(message, Heartbeat):
            self._steps = message.steps
        if isinstance(message, State) and message.phase == "ready":
            self._ready = True
        if advanced or isinstance(message, StepOutput) or not holding or not self._ready:
            self._advance = now

    def hanging(self, now: float) -> tuple[float, str]:
        """For how many seconds, and what for."""
        silent, still = now - self._sign, now - self._advance
        return (silent, "gave no sign of life") if silent >= still else (still, "held requests and made no step")
