"""Tensor-parallel group: one model spread over several devices, with a process for each.

Transformers shards the weights. Rank 0 alone communicates with the worker and schedules; it sends each step to the other ranks,
which run it too. All of them compute the same logits, and so the same tokens.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from workers.gpu.engine.adjustments import Adjustments
from workers.gpu.engine.step import StepInput, StepResult

if TYPE_CHECKING:  # torch must not be imported before the rank is set
    from workers.gpu.engine.model_runner import ModelRunner, StartedStep

GeneratedTokens = Sequence[list[int] | None]

# Messages of rank 0 to the others: a kind, a length, and a step, the adjustments of the last step, or the JSON of tokens.
_STEP, _ADJUSTMENTS, _TOKENS, _LENGTH = b"s", b"a", b"t", struct.Struct("<I")


def set_rank_environment(rank: int, ranks: int, port: int) -> None:
    """Set the rank of this process. Call before torch is imported, which reads it when the model is loaded."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # All ranks are on this machine, whatever its host name resolves to.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Otherwise each collective inside a CUDA graph waits for those outside of it.
    os.environ.setdefault("NCCL_GRAPH_MIXING_SUPPORT", "0")


class TensorParallelGroup:
    """Starts ranks 1 and up with the arguments of this process; calls ``on_exit`` with a sentence when one of them exits.

    The kernel ties them to the thread that calls this.
    """

    def __init__(self, ranks: int, arguments: Sequence[str], on_exit: Callable[[str], None]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        set_rank_environment(0, ranks, port)
        self._processes = []
        for rank in range(1, ranks):
            own_arguments = ["--rank", str(rank), "--port", str(port), "--rank-zero-pid", str(os.getpid())]
            command = [sys.executable, "-m", "workers.gpu.engine", *arguments, *own_arguments]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            self._processes.append(process)
            threading.Thread(target=_watch, args=[process, rank, ranks, on_exit], name=f"rank {rank}", daemon=True).start()

    def send_step(self, step: StepInput) -> None:
        """Have the other ranks run this step."""
        self._send(_STEP, step.encode())

    def send_adjustments(self, adjustments: Adjustments) -> None:
        """Have the other ranks sample in the last step."""
        self._send(_ADJUSTMENTS, adjustments.encode())

    def send_tokens(self, tokens: GeneratedTokens) -> None:
        """Send the tokens that the self-test generated to the other ranks."""
        self._send(_TOKENS, json.dumps(list(tokens)).encode())

    def _send(self, kind: bytes, content: bytes) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(kind + _LENGTH.pack(len(content)) + content)
            process.stdin.flush()


class RankZeroRunner:
    """Runs each step on all ranks."""

    def __init__(self, runner: "ModelRunner", group: TensorParallelGroup) -> None:
        self._runner, self._group = runner, group

    def start_step(self, step: StepInput) -> "StartedStep":
        self._group.send_step(step)
        started = self._runner.start_step(step)
        return _RankZeroStep(started, self._group) if step.is_adjusted else started


class _RankZeroStep:
    """A step that samples on all ranks when it is adjusted."""

    def __init__(self, started: "StartedStep", group: TensorParallelGroup) -> None:
        self._started, self._group = started, group
        self.mask_rows = started.mask_rows

    def adjust(self, adjustments: Adjustments) -> None:
        self._group.send_adjustments(adjustments)
        self._started.adjust(adjustments)

    def result(self) -> StepResult:
        return self._started.result()


def follow_steps(runner: "ModelRunner") -> GeneratedTokens:
    """On ranks 1 and up: run the steps of rank 0 until it sends tokens, and return these. Raises EOFError when rank 0 is gone."""
    running: deque[StartedStep] = deque()
    while True:
        kind, content = _receive()
        if kind == _TOKENS:
            tokens: GeneratedTokens = json.loads(content)
            return tokens
        if kind == _ADJUSTMENTS:
            running[-1].adjust(Adjustments.decode(content))
            continue
        running.append(runner.start_step(StepInput.decode(content)))
        if len(running) > 1:
            running.popleft().result()


def _receive() -> tuple[bytes, bytes]:
    header = sys.stdin.buffer.read(1 + _LENGTH.size)
    if len(header) < 1 + _LENGTH.size:
        raise EOFError("rank 0 is gone")
    return header[:1], sys.stdin.buffer.read(_LENGTH.unpack(header[1:])[0])


def _watch(process: subprocess.Popen[bytes], rank: int, ranks: int, on_exit: Callable[[str], None]) -> None:
    status = process.wait()
    how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    on_exit(f"rank {rank} of {ranks} {how}; see the log above")
