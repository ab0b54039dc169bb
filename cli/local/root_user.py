"""Server processes do not run as root: an error in code that reads requests and files of strangers would then affect the whole machine.

One exception keeps the first steps in a container simple: ``up`` and ``demo`` on loopback only warn.
"""

import os
import sys

from cli.errors import CommandError
from shared.machine import is_loopback
from shared.settings import Settings

ADVICE = "Start it as another user, or set ENGINEHOUSE_ALLOW_ROOT=1 to accept the risk."


def check_user(settings: Settings, command: str, *, warn_on_loopback: bool = False) -> None:
    """Raise CommandError if this process runs as root, unless ENGINEHOUSE_ALLOW_ROOT allows it.

    With ``warn_on_loopback``, print a warning instead while only this machine can reach the API.
    """
    if os.geteuid() != 0 or settings.allow_root:
        return
    if not warn_on_loopback:
        raise CommandError(f"`enginehouse {command}` does not run as root. {ADVICE}")
    if not is_loopback(settings.host):
        raise CommandError(
            f"`enginehouse {command}` does not run as root when other machines can reach {settings.host}. {ADVICE}"
        )
    print(
        "Warning: running as root, so an error in a program that reads uploaded files could affect the whole machine. "
        "Use another user, or set ENGINEHOUSE_ALLOW_ROOT=1 to hide this warning.",
        file=sys.stderr,
    )
