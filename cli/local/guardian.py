"""The process of ``enginehouse up``: it starts the supervisor, forwards signals to it, and outlives it.

With two processes above the services, kill -9 of either leaves nothing running: the supervisor receives a signal when the guardian
dies, and if the supervisor dies, its orphans become children of the guardian, which kills them.
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
    """Run ``command`` and return its exit status, or 1 if it was killed. Everything it started has ended on return."""
    process: Popen[bytes] | None = None

    def forward(number: int, frame: FrameType | None) -> None:
        if process is None:
            raise SystemExit(128 + number)
        # The supervisor has its own process group, so Ctrl-C on the terminal does not reach it a second time.
        process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    process = spawn(command, environment=environment, death_signal=GUARDIAN_GONE)
    status = process.wait()
    survivors = kill_descendants()
    if status < 0:
        print(f"The supervisor was killed by {signal.Signals(-status).name}; everything it started was stopped.", file=sys.stderr)
    if survivors:
        print(f"These processes could not be killed: {', '.join(map(str, survivors))}.", file=sys.stderr)
    return status if status >= 0 and not survivors else 1
