"""Marker of a server that requires API keys: a file in the data folder.

Keys are records in Redis. If Redis loses them, or an older state of it is restored, the file keeps the server closed.
"""

from pathlib import Path

FILE_NAME = "keys-required"


class ClosedMarker:
    """The file ``keys-required`` in a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / FILE_NAME

    def is_set(self) -> bool:
        return self._file.exists()

    def set(self) -> None:
        """Write the file. It contains nothing; only its existence counts."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.touch(mode=0o600)

    def remove(self) -> None:
        """Remove the file, for an operator who returns to a server without keys."""
        self._file.unlink(missing_ok=True)
