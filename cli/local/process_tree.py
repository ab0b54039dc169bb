"""Start processes that cannot outlive their parent, and end all descendants of a process.

Linux provides three mechanisms: a process group per child, ``PR_SET_PDEATHSIG`` (a child is killed when the thread
that started it ends), and the subreaper (orphaned grandchildren become our children instead of init's).
Other systems only have the process group.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from shared.prctl import die_with_parent


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    output: int | IO[bytes] | None = None,
    errors: int | None = subprocess.STDOUT,
    death_signal: int = signal.SIGKILL,
    directory: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in its own session and process group; it receives ``death_signal`` when this process dies. Standard output
    and error go to ``output``; with ``errors=None``, standard error is ours.

    The calling thread must live as long as the process. Raises OSError if it cannot be started.
    """
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors if output is not None else None,
        cwd=directory,
        start_new_session=True,
        preexec_fn=tie_to_parent(os.getpid(), death_signal),
    )


def descendants(root: int) -> list[int]:
    """All living descendants of ``root``, without zombies. Empty on systems without /proc."""
    below: dict[int, list[int]] = {}
    for pid, parent, state in _processes():
        if state not in "ZX":
            below.setdefault(parent, []).append(pid)
    found: list[int] = []
    unseen = [root]
    while unseen:
        found_children = below.get(unseen.pop(), [])
        found += found_children
        unseen += found_children
    return found


def children(parent: int) -> list[int]:
    """The direct children of a process, including zombies."""
    try:
        # One small file for each thread, where reading the state of every process takes milliseconds.
        threads = os.listdir(f"/proc/{parent}/task")
        return [int(pid) for thread in threads for pid in _read(f"/proc/{parent}/task/{thread}/children").split()]
    except OSError:  # the process or a thread has just ended, or the kernel has no such file
        return [pid for pid, its_parent, _ in _processes() if its_parent == parent]


def signal_group(leader: int, number: int) -> None:
    """Send a signal to all members of a process group, if any."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def kill_descendants(timeout: float = 10.0) -> list[int]:
    """Kill and reap all descendants of this process. Returns those that still exist after ``timeout`` seconds.

    ``adopt_orphans`` must have been called before, or orphans are missed.
    """
    deadline = time.monotonic() + timeout
    while (living := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)
    return living


def _processes() -> Iterator[tuple[int, int, str]]:
    """The id, parent and state letter of every process."""
    # Without pathlib, as the supervisor does this every few seconds.
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with suppress(OSError, ValueError):
                # The command name in parentheses may contain anything; the fields follow the last ")".
                state, parent = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()[:2]
                yield int(name), int(parent), state.decode()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def tie_to_parent(parent: int, number: int) -> Callable[[], None]:
    """What a new child of ``parent`` runs first, so that it receives this signal when the thread that started it ends."""

    def tie() -> None:
        if die_with_parent(number) and os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return tie
