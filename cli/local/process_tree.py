"""Starting processes that cannot outlive their starter, and ending all that descends from a process.

Linux gives three things for this: a process group per child, ``PR_SET_PDEATHSIG`` (a child is killed when the thread
that started it ends), and the subreaper (orphaned grandchildren become ours instead of init's, so none gets lost).
Elsewhere only the process group holds. Knows nothing about what the processes do.
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
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session and process group of its own; ``death_signal`` is what it gets when we die.
    Both its outputs go to ``output``, unless ``errors`` is None, which leaves it our standard error.

    Call this from a thread that lives as long as the process shall. Raises OSError if it cannot be started.
    """
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors if output is not None else None,
        start_new_session=True,
        preexec_fn=_tie_to_parent(os.getpid(), death_signal),
    )


def descendants(root: int) -> list[int]:
    """Every living process below ``root``, without it; zombies are not counted. Empty where there is no /proc."""
    below: dict[int, list[int]] = {}
    for pid, parent, state in _processes():
        if state not in "ZX":
            below.setdefault(parent, []).append(pid)
    found: list[int] = []
    unseen = [root]
    while unseen:
        here = below.get(unseen.pop(), [])
        found += here
        unseen += here
    return found


def children(parent: int) -> list[int]:
    """The direct children of a process, zombies among them."""
    return [pid for pid, its_parent, _ in _processes() if its_parent == parent]


def signal_group(leader: int, number: int) -> None:
    """Send a signal to every member of the process group; no error if none is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def kill_descendants(patience: float = 10.0) -> list[int]:
    """Kill all that descends from this process, and reap it. Returns what is still there after ``patience`` seconds.

    Needs ``adopt_orphans`` to have been called early, or orphans escape it.
    """
    deadline = time.monotonic() + patience
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
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            # The command's name, in parentheses, may hold anything; what follows the last ")" is regular.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            yield int(entry.name), int(parent), state


def _tie_to_parent(parent: int, number: int) -> Callable[[], None]:
    def tie() -> None:
        if die_with_parent(number) and os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return tie
