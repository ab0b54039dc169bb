"""Tensor-parallel group: one model spread over several devices, with a process for each.

Transformers shards the weights and brings requests and cancels to every rank, and all ranks run the same steps. Rank 0 alone
communicates with the worker.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

GeneratedTokens = Sequence[list[int] | None]


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

    def broadcast(self, tokens: GeneratedTokens) -> None:
        """Send the tokens that the self-test generated to the other ranks."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(list(tokens)).encode() + b"\n")
            process.stdin.flush()


def receive_broadcast() -> GeneratedTokens:
    """On ranks 1 and up: the tokens that rank 0 broadcasts. Raises EOFError when rank 0 is gone."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError("rank 0 is gone")
    tokens: GeneratedTokens = json.loads(line)
    return tokens


def _watch(process: subprocess.Popen[bytes], rank: int, ranks: int, on_exit: Callable[[str], None]) -> None:
    status = process.wait()
    how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    on_exit(f"rank {rank} of {ranks} {how}; see the log above")
