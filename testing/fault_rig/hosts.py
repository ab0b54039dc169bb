"""Hosts for fault tests: each has its own host name and process ids, and is killed as a whole.

A host is a pair of Linux namespaces, so the processes of one host cannot see another host's, as between machines. Hosts share the
network: each server gets its own loopback address. Namespaces need root.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from testing.fault_rig.processes import kill, process_tree
from testing.repository import REPOSITORY
from testing.waiting import LONG_SECONDS

UNSHARE = ("unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


def hosts_are_possible() -> bool:
    """Whether this user may create namespaces."""
    try:
        return subprocess.run([*UNSHARE, "hostname", "probe"], capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Host:
    """A host that runs one command of ``enginehouse``, such as ``["worker", "io"]``. Its output goes to ``folder``."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        script = 'hostname "$1"; shift; exec "$@"'
        command = [*UNSHARE, "sh", "-c", script, "host", name, sys.executable, "-m", "cli.main", *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=REPOSITORY, env={**os.environ, **environment}
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill all of its processes at once, as a power failure would."""
        for process in process_tree(self._process.pid)[1:]:
            kill(process.pid)
        kill(self._process.pid)
        self._process.wait(LONG_SECONDS)

    def stop(self) -> int:
        """Stop it gracefully, so that it drains; return its exit status."""
        for process in process_tree(self._process.pid)[1:2]:
            kill(process.pid, signal.SIGTERM)
        return self._process.wait(LONG_SECONDS)
