"""The supervisor restarts services, and no process outlives it, whichever process is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from testing.fault_rig.processes import is_alive
from testing.repository import REPOSITORY
from testing.waiting import wait_until

# The worst case: a service with a child that has left its process group and ignores SIGTERM.
SERVICE = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('child up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("service up", flush=True)
time.sleep(600)
"""

SUPERVISED = """
import os, sys
from cli.local.console_log import ConsoleLog
from cli.local.guardian import GUARDIAN_GONE
from cli.local.supervisor import Service, ShutdownRequest, Supervisor
supervisor = Supervisor(ConsoleLog(), guardian_signal=GUARDIAN_GONE)
for name in ("first", "second"):
    supervisor.start_service(Service(name, [sys.executable, "-c", sys.argv[1], *sys.argv[2:]], dict(os.environ), grace=30))
while supervisor.shutdown_request is ShutdownRequest.NONE:
    supervisor.process_events(1)
print("stopping", flush=True)
supervisor.stop_services((("second",), ("first",)))
print("stopped", flush=True)
"""

# One service, whose program is a file and never touches its liveness file.
SUPERVISED_FILE = """
import os, sys
from pathlib import Path
from cli.local.console_log import ConsoleLog
from cli.local.guardian import GUARDIAN_GONE
from cli.local.supervisor import Service, ShutdownRequest, Supervisor
supervisor = Supervisor(ConsoleLog(), guardian_signal=GUARDIAN_GONE, frozen_seconds=1)
supervisor.start_service(Service("tool", sys.argv[1:], dict(os.environ), liveness=Path("/nonexistent")))
while supervisor.shutdown_request is ShutdownRequest.NONE:
    supervisor.process_events(1)
supervisor.stop_services((("tool",),))
"""

GUARD = """
import os, sys
from cli.local.guardian import run_guarded
sys.exit(run_guarded([sys.executable, "-c", *sys.argv[1:]], os.environ))
"""


class Tree:
    """A guardian with its supervisor and all their descendants."""

    def __init__(self, log: Path, *arguments: str, supervised: str = SUPERVISED) -> None:
        self._log = log
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with log.open("wb") as output:
            command = [sys.executable, "-c", GUARD, supervised, *arguments]
            self.guardian = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
        self.seen: dict[int, psutil.Process] = {}

    @property
    def log(self) -> str:
        return self._log.read_text()

    def await_line(self, text: str, times: int = 1) -> None:
        wait_until(lambda: self.log.count(text) >= times, f"{text!r} {times} times in the log")

    def processes(self) -> list[psutil.Process]:
        """All current descendants of the guardian. They are remembered, as orphans cannot be found through their parents."""
        found = psutil.Process(self.guardian.pid).children(recursive=True)
        self.seen.update((process.pid, process) for process in found)
        return found

    def supervisor(self) -> psutil.Process:
        return psutil.Process(self.guardian.pid).children()[0]

    def living(self) -> list[psutil.Process]:
        return [process for process in self.seen.values() if is_alive(process)]


@pytest.fixture
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    tree = Tree(tmp_path / "log", *getattr(request, "param", (SERVICE,)))
    yield tree
    if tree.guardian.poll() is None:
        tree.processes()
        tree.guardian.kill()
        tree.guardian.wait()
    for process in tree.living():
        with suppress(psutil.NoSuchProcess):  # the system ends it with its parent
            process.kill()


def all_up(tree: Tree) -> None:
    tree.await_line("child up", 2)
    assert len(tree.processes()) == 5, "the supervisor, two services, a child of each"


@pytest.mark.parametrize("victim", ["guardian", "supervisor"])
def test_kill_9_of_a_parent_leaves_no_process(tree: Tree, victim: str) -> None:
    all_up(tree)
    os.kill(tree.guardian.pid if victim == "guardian" else tree.supervisor().pid, signal.SIGKILL)
    wait_until(lambda: not tree.living(), "no descendant is left")
    assert tree.guardian.wait(240) != 0


def test_shutdown_stops_services_in_order_with_their_children(tree: Tree) -> None:
    all_up(tree)
    tree.guardian.send_signal(signal.SIGTERM)
    assert tree.guardian.wait(240) == 0
    assert "stopped" in tree.log
    assert not tree.living()


@pytest.mark.parametrize("tree", [(SERVICE, "stubborn")], indirect=True)
def test_a_second_interrupt_kills_at_once(tree: Tree) -> None:
    all_up(tree)
    tree.guardian.send_signal(signal.SIGINT)
    tree.await_line("stopping")
    assert len(tree.processes()) == 5, "the first one leaves them their grace"
    tree.guardian.send_signal(signal.SIGINT)
    assert tree.guardian.wait(240) == 0
    assert not tree.living()


def test_a_killed_service_restarts_without_its_old_children(tree: Tree) -> None:
    all_up(tree)
    service = next(process for process in tree.supervisor().children() if process.children())
    child = service.children()[0]
    service.kill()
    tree.await_line("was killed by SIGKILL; restarting in 0.5 s")
    wait_until(lambda: not child.is_running(), "its child is gone too")
    tree.await_line("child up", 3)
    assert len(tree.processes()) == 5


# Its child ends and leaves a child of its own.
LEAVING = """
import subprocess, sys, time
orphan = "import time; print('orphan up', flush=True); time.sleep(600)"
child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}], start_new_session=True)"
subprocess.run([sys.executable, "-c", child])
time.sleep(600)
"""


@pytest.mark.parametrize("tree", [(LEAVING,)], indirect=True)
def test_an_orphan_of_a_service_that_goes_on_is_killed(tree: Tree) -> None:
    tree.await_line("orphan up", 2)
    wait_until(lambda: len(tree.processes()) == 3, "only the supervisor and its services are left", seconds=10)


def test_a_crashing_service_restarts_with_growing_delays(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "log", "/bin/sh", "-c", "exit 3", supervised=SUPERVISED_FILE)
    try:
        for delay in ("0.5", "1", "2"):
            tree.await_line(f"tool exited with status 3; restarting in {delay} s")
        assert tree.guardian.poll() is None
    finally:
        tree.guardian.kill()
        tree.guardian.wait()


@pytest.mark.parametrize("tree", [("import sys, time; time.sleep(0.8); sys.exit(3)",)], indirect=True)
def test_a_service_that_ran_for_longer_than_the_delay_restarts_at_once(tree: Tree) -> None:
    tree.await_line("first exited with status 3; restarting in 0.5 s", 2)
    assert tree.guardian.poll() is None


def test_a_service_that_cannot_be_started_again_is_tried_until_it_can(tmp_path: Path) -> None:
    program = tmp_path / "tool"

    def install() -> None:
        draft = tmp_path / "draft"
        draft.write_text('#!/bin/sh\necho "tool up"\nrm "$0"\n')
        draft.chmod(0o755)
        draft.rename(program)

    install()
    tree = Tree(tmp_path / "log", str(program), supervised=SUPERVISED_FILE)
    try:
        tree.await_line("tool could not be started")
        assert tree.guardian.poll() is None
        install()
        tree.await_line("tool up", 2)
        tree.guardian.send_signal(signal.SIGTERM)
        assert tree.guardian.wait(240) == 0
    finally:
        tree.guardian.kill()
        tree.guardian.wait()


def test_a_service_that_is_stopped_before_it_has_touched_its_file_is_restarted(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "log", "/bin/sh", "-c", "echo tool up; kill -STOP $$", supervised=SUPERVISED_FILE)
    try:
        tree.await_line("tool has shown no sign of life")
        tree.await_line("tool up", 2)
        assert tree.guardian.poll() is None
    finally:
        tree.guardian.kill()
        tree.guardian.wait()


NOISY = """
import os, sys
from pathlib import Path
import re
from cli.local.console_log import ConsoleLog
from cli.local.supervisor import Service, Supervisor
supervisor = Supervisor(ConsoleLog())
command = [sys.executable, "-c", "print('# WARNING advice'); print('news', flush=True); import time; time.sleep(600)"]
noise = re.compile("# WARNING")
log = Path(sys.argv[1])
supervisor.start_service(Service("redis", command, dict(os.environ), noise=noise, noise_log=log))
while not log.exists():
    supervisor.process_events(0.1)
supervisor.process_events(0.1)
supervisor.stop_services((("redis",),))
"""


def test_noise_of_a_service_goes_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    command = [sys.executable, "-c", NOISY, str(log)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "redis | news\n"), done.stderr
    assert log.read_text() == "# WARNING advice\n"
