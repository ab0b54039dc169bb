"""The audit log: who changed what on the server, as JSON lines in a file that only its user can read.

Every API process and command appends to the same file. It has ids and names, and never a prompt, an answer or a secret. If a line
cannot be written, it goes to the process' log and the action still takes place.
"""

import fcntl
import getpass
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.settings import Settings

logger = logging.getLogger(__name__)

MAX_BYTES, OLD_FILES = 16 * 2**20, 9
MAX_TARGETS = 100
MAX_TARGET_LENGTH = 200
DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts: an owner with a key, from an address, or a user of the server's machine with a command."""

    owner: str = ""
    key: str = ""
    key_name: str = ""
    address: str = ""
    user: str = ""


class AuditLog:
    """Appends to one file; without a file it does nothing. Safe to use from many threads and processes."""

    def __init__(self, file: Path | None, *, max_bytes: int = MAX_BYTES) -> None:
        self._file = file
        self._max_bytes = max_bytes

    def record(
        self,
        action: str,
        actor: Actor,
        *,
        targets: Sequence[str] = (),
        outcome: str = DONE,
        request_id: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one line. ``action`` is an object and a verb, such as ``key.revoke``; ``outcome`` is ``done`` or the code of an error."""
        if self._file is None:
            return
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "action": action,
            "outcome": outcome,
            **{name: value for name, value in asdict(actor).items() if value},
            "targets": [target[:MAX_TARGET_LENGTH] for target in targets[:MAX_TARGETS]],
            **({"request_id": request_id} if request_id else {}),
            **(details or {}),
        }
        line = json.dumps(entry) + "\n"
        try:
            self._append(self._file, line.encode())
        except OSError as error:
            logger.error("The audit log %s cannot be written (%s): %s", self._file, error, line.rstrip())

    def _append(self, file: Path, line: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # Another process may have renamed the file since it was opened.
                opened = os.fstat(descriptor)
                if not file.exists() or file.stat().st_ino != opened.st_ino:
                    continue
                if opened.st_size and opened.st_size + len(line) > self._max_bytes:
                    self._rename(file)
                    continue
                os.write(descriptor, line)
                return
            finally:
                os.close(descriptor)

    @staticmethod
    def _rename(file: Path) -> None:
        """Make room for a new file: increase the number of each older file, and delete the oldest."""
        for number in range(OLD_FILES - 1, 0, -1):
            older = file.with_name(f"{file.name}.{number}")
            if older.exists():
                older.replace(file.with_name(f"{file.name}.{number + 1}"))
        file.replace(file.with_name(f"{file.name}.1"))


def audit_log_of(settings: Settings) -> AuditLog:
    """The audit log of a server."""
    return AuditLog(settings.audit_file)


def command_user() -> Actor:
    """The user who runs a command on the server's machine."""
    try:
        return Actor(user=getpass.getuser())
    except (OSError, KeyError):  # a user without a name, as in a container
        return Actor(user=str(os.getuid()))
