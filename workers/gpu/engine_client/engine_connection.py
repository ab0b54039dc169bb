"""Connection to one engine process, and the process itself."""

import contextlib
import logging
import math
import os
import queue
import signal
import socket
import struct
import subprocess
import threading
from multiprocessing.connection import Connection
from typing import Protocol

from shared.models.catalogue import VLLM, ModelEntry
from shared.settings import Settings
from workers.gpu.engine.messages import Message, decode_message, encode_message, join_messages
from workers.gpu.engine_client.engine_interpreter import find_interpreter
from workers.gpu.weights import prepare_adapters, prepare_model

logger = logging.getLogger("engine_process")

# Messages in one write. The engine begins with the first once it has read them all.
MAX_JOINED = 32


class EngineConnection(Protocol):
    """Messages to and from one engine process."""

    @property
    def pid(self) -> int | None:
        """Process id, None once the process has exited."""
        ...

    def send_message(self, message: Message) -> None:
        """Send a message after those that were sent before. Does nothing when the process is gone. Any thread may call this."""
        ...

    def receive_message(self, timeout: float) -> Message | None:
        """The next message, or None after ``timeout`` seconds. Raises EOFError or OSError when the process is gone."""
        ...

    def close(self) -> None:
        """Close the connection, which makes the process exit."""
        ...

    def kill(self) -> None:
        """Kill the process."""
        ...

    def wait_for_exit(self) -> str:
        """Close the connection, wait for the process to exit (kill it if need be), and describe the exit."""
        ...


class ProcessConnection:
    """Starts an engine process and connects to it.

    The kernel ties the process to the thread that calls this: it is killed when that thread ends.
    """

    def __init__(
        self, entry: ModelEntry, settings: Settings, *, device: str | None, in_flight: int, token_seconds: float, ranks: int = 1
    ) -> None:
        ours, theirs = socket.socketpair()
        # A process that stops reading must not block its senders for longer than it may be silent.
        timeout = struct.pack("@ll", math.ceil(settings.engine_hang_seconds), 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        interpreter = find_interpreter(entry.engine, settings)
        command = [interpreter.path, "-m", "workers.gpu.engine", "--model", entry.name]
        command += ["--models-file", str(settings.models_file.resolve()), "--prepared", str(settings.prepared_models.resolve())]
        command += ["--compiled", str((settings.data_dir / "compiled").resolve())]
        command += ["--engine", settings.engine, "--connection", str(theirs.fileno()), "--log-level", settings.log_level]
        command += ["--log-format", settings.log_format, "--log-levels", settings.log_levels]
        command += ["--in-flight", str(in_flight), "--token-seconds", str(token_seconds), "--ranks", str(ranks)]
        if entry.engine == VLLM:
            # A package of weights, or what converts them, is not in the environment of vLLM.
            folder = prepare_model(entry, settings.prepared_models, lambda step, done: None)
            command += ["--folder", str(folder)]
            for name, adapter in prepare_adapters(entry, lambda step, done: None).items():
                command += ["--adapter", name, str(adapter)]
        environment = interpreter.environment()
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
            # By default CUDA orders GPUs by speed; NVML and nvidia-smi order them by PCI bus.
            environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self._is_group = entry.engine == VLLM
        # None after the last message.
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._connection = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                # Processes that vLLM spawns outlive the one that spawned them, and keep the GPU.
                process_group=0 if self._is_group else None,
            )
        threading.Thread(target=self._write_outgoing, name=f"engine-writer-{entry.name}", daemon=True).start()
        logger.info("engine of %s started as process %d", entry.name, self._process.pid)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process.poll() is None else None

    def send_message(self, message: Message) -> None:
        self._outgoing.put(encode_message(message))

    def _write_outgoing(self) -> None:
        """Write what was sent, until the connection is closed.

        In a thread of its own, which takes all that waits. If each thread wrote its message under a lock, the threads of hundreds of jobs would
        wait for each other for up to a second: a write gives the interpreter lock away, and many want it.
        """
        while (message := self._outgoing.get()) is not None:
            messages = [message]
            with contextlib.suppress(queue.Empty):
                while len(messages) < MAX_JOINED and (message := self._outgoing.get_nowait()) is not None:
                    messages.append(message)
            try:
                self._connection.send_bytes(join_messages(messages))
            except OSError:
                # The process is exiting, or has not read for so long that half a message may be stuck in the socket. It could
                # not parse anything after that, so the connection ends here.
                message = None
            if message is None:
                self.close()
                return

    def receive_message(self, timeout: float) -> Message | None:
        return decode_message(self._connection.recv_bytes()) if self._connection.poll(timeout) else None

    def close(self) -> None:
        self._outgoing.put(None)
        # Both sides read end-of-file, while the descriptor stays valid for threads that still use it.
        try:
            with socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # already closed

    def kill(self) -> None:
        if not self._is_group:
            self._process.kill()
        elif self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait_for_exit(self) -> str:
        self.close()
        try:
            status = self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self._process.wait()
        if self._is_group:
            # Whatever is left of it. The number is not used again while the group has members.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return f"killed by signal {-status}" if status < 0 else f"exited with status {status}"
