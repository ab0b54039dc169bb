"""One model over several devices: a process for each, and this one, of rank 0, alone speaks with the worker.

Transformers shares out the weights and brings requests and cancels to every rank; all make the same steps. It knows neither
models nor requests.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

Answers = Sequence[list[int] | None]


def join(rank: int, ranks: int, port: int) -> None:
    """Tell this process its place. Before torch is imported, which reads the rest when the model is loaded."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # All ranks are on this machine, whatever its name resolves to.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Else each collective inside a CUDA graph waits for those outside of it.
    os.environ.setdefault("NCCL_GRAPH_MIXING_SUPPORT", "0")


class TensorParallelGroup:
    """Starts ranks 1 and up with the arguments of this process. ``ended`` is called with a sentence when one of them ends.

    The kernel ties them to the thread that calls this.
    """

    def __init__(self, ranks: int, arguments: Sequence[str], ended: Callable[[str], None]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        join(0, ranks, port)
        self._processes = []
        for rank in range(1, ranks):
            place = ["--rank", str(rank), "--port", str(port), "--leader", str(os.getpid())]
            command = [sys.executable, "-m", "workers.gpu.engine", *arguments, *place]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            self._processes.append(process)
            threading.Thread(target=_watch, args=[process, rank, ranks, ended], name=f"rank {rank}", daemon=True).start()

    def tell(self, answers: Answers) -> None:
        """Give all of them what the batch of the self-test answered."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(list(answers)).encode() + b"\n")
            process.stdin.flush()


def told() -> Answers:
    """In a follower: what ``Followers.tell`` gave. Raises EOFError when rank 0 is gone."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError("rank 0 is gone")
    answers: Answers = json.loads(line)
    return answers


def _watch(process: subprocess.Popen[bytes], rank: int, ranks: int, ended: Callable[[str], None]) -> None:
    status = process.wait()
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    ended(f"the process of rank {rank} of {ranks} {how}; the log has what it said")
