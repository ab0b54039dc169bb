"""Child processes that read untrusted files: how the worker starts them, talks to them, and kills them.

A child gets the file as an open descriptor, an empty environment and its request on standard input, because any user of the
machine can read command-line arguments. It answers with lines of JSON on standard output.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from shared.packaged_files import CODE_ROOT
from workers.cpu.sandbox import fork_server

_SERVER_PATH = re.compile(
    "|".join(re.escape(f"{folder}/") + r"[^\s'\"<>:,;)]*" for folder in (CODE_ROOT, sys.prefix, sys.base_prefix))
)
_DESCRIPTOR_PATH = re.compile(r"/(?:dev|proc/self)/fd/\d+")


class ChildProcesses:
    """The children of one attempt. Any thread may kill them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[fork_server.Fork | subprocess.Popen[bytes]] = set()
        self._killed = False

    def kill(self) -> None:
        """Kill all children, and those that are started later as soon as they start."""
        with self._lock:
            self._killed = True
            for child in self._children:
                child.kill()

    @contextmanager
    def start(self, module: str, path: Path, request: Mapping[str, Any]) -> Iterator["ChildProcess"]:
        """Run ``module`` with the open file ``path`` and a request, in which ``path`` and ``descriptor`` are added. The child has
        exited at the end of the block."""
        with path.open("rb") as file, _pipe() as (input_end, requests), _pipe() as (output, output_end):
            child: fork_server.Fork | subprocess.Popen[bytes]
            if fork_server.is_used_for(module):
                descriptor = fork_server.FILE
                child = fork_server.fork(module, file.fileno(), input_end.fileno(), output_end.fileno())
            else:
                descriptor = file.fileno()
                child = subprocess.Popen(
                    [sys.executable, "-B", "-m", module],
                    cwd=CODE_ROOT,
                    env={},  # a child under the control of its file must not find addresses or secrets
                    pass_fds=[descriptor],
                    stdin=input_end,
                    stdout=output_end,
                    stderr=subprocess.DEVNULL,
                )
            # Only the child has these now, so its end is the end of its output.
            for given in (file, input_end, output_end):
                given.close()
            with self._lock:
                self._children.add(child)
                if self._killed:
                    child.kill()
            try:
                with suppress(BrokenPipeError), requests:  # it died at once; its exit status is examined later
                    values = {**request, "path": f"/dev/fd/{descriptor}", "descriptor": descriptor}
                    requests.write(json.dumps(values).encode() + b"\n")
                yield ChildProcess(child, output)
            finally:
                child.kill()
                child.wait()
                with self._lock:
                    self._children.discard(child)


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Both ends of a pipe."""
    ends = os.pipe()
    with open(ends[0], "rb") as reader, open(ends[1], "wb") as writer:
        yield reader, writer


class ChildProcess:
    """A running child."""

    def __init__(self, child: "fork_server.Fork | subprocess.Popen[bytes]", output: IO[bytes]) -> None:
        self._child = child
        self._output = output

    def kill(self) -> None:
        self._child.kill()

    @property
    def pid(self) -> int:
        return self._child.pid

    def exit_status(self) -> int:
        """Wait for the end of the child; negative is the number of the signal that killed it."""
        return self._child.wait()

    def read_message(self, max_bytes: int) -> object:
        """The next line of output, or None if it is not JSON: a child under the control of its file may write anything.
        Reasons and faults lose the paths of this server. Raises EOFError at the end."""
        line = self._output.readline(max_bytes)
        if not line:
            raise EOFError
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if isinstance(message, dict):
            message |= {key: without_paths(message[key]) for key in ("reason", "fault") if isinstance(message.get(key), str)}
        return message

    def read_exactly(self, length: int) -> bytes:
        """This number of bytes. Raises EOFError if the output ends before."""
        data = self._output.read(length)
        if len(data) < length:
            raise EOFError
        return data


def without_paths(text: str) -> str:
    """A message of a library without the paths of this server's files."""
    return _SERVER_PATH.sub(lambda path: os.path.basename(path[0]), _DESCRIPTOR_PATH.sub("the file", text))
