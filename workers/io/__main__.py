"""Run the worker of the io pool until a signal stops it: ``python -m workers.io``."""

import socket
import sys

from shared.errors import SettingsError
from shared.process_exit import end_on_interrupt, exit_now


def main() -> int:
    end_on_interrupt()
    try:
        from workers.io.app import worker
    except SettingsError as error:
        print("\n".join(error.problems), file=sys.stderr)  # noqa: T201 there is no log yet
        return 2
    worker.run_until_exit(f"io@{socket.gethostname()}")
    return 0


if __name__ == "__main__":
    exit_now(main())
