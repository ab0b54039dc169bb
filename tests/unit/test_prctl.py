"""Linux process controls, each tried on a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from testing.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) exists only on Linux")

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", '''
import sys; sys.path.insert(0, {root!r})
from shared.prctl import die_with_parent
assert die_with_parent()
print("tied", flush=True)
import time; time.sleep(60)
'''], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_dies_with_its_killed_parent() -> None:
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen([sys.executable, "-S", "-c", PARENT.format(root=root)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait(240)
    parent.stdout.close()

    def is_gone() -> bool:
        try:
            return "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
        except FileNotFoundError:
            return True

    wait_until(is_gone, "the child is gone")
