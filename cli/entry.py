"""Start of the ``enginehouse`` command: the health check at once, everything else in ``cli.main``.

Container runtimes and service managers run the health check every few seconds beside each worker. Loading the whole command takes most
of a second on a busy machine; this module and what the check needs import only the standard library.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main() -> None:
    """Run the command with the arguments of this process."""
    status = quick_healthcheck(sys.argv[1:])
    if status is not None:
        sys.exit(status)
    from cli.main import main as run_command

    run_command()


def quick_healthcheck(arguments: Sequence[str]) -> int | None:
    """The exit status of ``healthcheck [WORKER] [--data FOLDER]``; None for any other arguments and for settings with a mistake, which
    ``cli.main`` reports."""
    if arguments[:1] != ["healthcheck"]:
        return None
    worker, data = "", None
    words = iter(arguments[1:])
    for word in words:
        if word == "--data":
            data = next(words, None)
            if data is None:
                return None
        elif word.startswith("--data="):
            data = word.removeprefix("--data=")
        elif word.startswith("-") or worker:
            return None
        else:
            worker = word
    from cli.local.healthcheck import report_health
    from shared.errors import SettingsError
    from shared.settings_sources import from_environment

    try:
        folder = from_environment(os.environ, **({} if data is None else {"data_dir": Path(data)})).data_dir
    except SettingsError:
        return None
    return report_health(folder.resolve(), worker)


if __name__ == "__main__":
    main()
