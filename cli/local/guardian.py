"""The process that ``enginehouse up`` is: it starts the supervisor, hands signals on to it, and outlives it.

Two processes stand above the services so that kill -9 of either leaves nothing running: the supervisor is told at once
when the guardian dies, and orphans of a supervisor that dies become children of the guardian, which kills them.
"""

import signal
import sys
from collections.abc import Mapping, Sequence
from subprocess import Popen
from types import FrameType

from cli.local.process_tree import kill_descendants, spawn
from shared.prctl import adopt_orphans

GUARDIAN_GONE = signal.SIGUSR1


def run_guarded(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run ``command`` to its end and return its exit status, 1 if it was killed. Nothing that it started is left."""
    process: Popen[bytes] | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        if process is None:
            raise SystemExit(128 + number)
        # A process group of its own keeps the terminal's Ctrl-C from reaching the supervisor a second time.
        process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    process = spawn(command, environment=environment, death_signal=GUARDIAN_GONE)
    status = process.wait()
    left = kill_descendants()
    if status < 0:
        print(f"The supervisor was killed by {signal.Signals(-status).name}; all that it had started was ended.", file=sys.stderr)
    if left:
        print(f"These processes could not be ended: {', '.join(map(str, left))}.", file=sys.stderr)
    return status if status >= 0 and not left else 1
