"""Output of a request batch: two files, for answers and for errors, to which each outcome is appended once.

Redis says how much of them counts (``output_size`` and ``error_size``), in the same step in which it notes the written requests and
deletes their jobs. What a crash or a full disk has left after that is cut off.

Each attempt writes to files of its own, named by its number: an attempt that was taken for dead, and goes on, writes to files that nobody
reads any more.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from shared.disk_space import DiskSpace
from shared.jobs.models import Job

OUTPUT, ERRORS = "output", "error"
NAMES = (OUTPUT, ERRORS)


class BatchOutput:
    """The output files of one attempt."""

    def __init__(self, folder: Path, job: Job, disk_space: DiskSpace) -> None:
        self._folder = folder
        self._job = job
        self._disk_space = disk_space
        self._files: dict[str, int] = {}
        self.sizes = dict.fromkeys(NAMES, 0)

    def exists(self, state: Mapping[str, str]) -> bool:
        """Whether what earlier attempts have written is there."""
        earlier = int(state.get("part") or 0)
        sizes = {name: int(state.get(f"{name}_size") or 0) for name in NAMES}
        paths = {name: self.path(name, earlier) for name in NAMES}
        return all(not size or (paths[name].exists() and paths[name].stat().st_size >= size) for name, size in sizes.items())

    def open(self, state: Mapping[str, str]) -> None:
        """Continue after what earlier attempts have written. The caller then notes ``part`` in the state."""
        self._folder.mkdir(parents=True, exist_ok=True)
        earlier = int(state.get("part") or 0)
        for name in NAMES:
            self.sizes[name] = int(state.get(f"{name}_size") or 0)
            path, source = self.path(name, self._job.attempt), self.path(name, earlier)
            if self.sizes[name]:
                self._take_over(source, path)
            self._files[name] = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.ftruncate(self._files[name], self.sizes[name])
            os.lseek(self._files[name], 0, os.SEEK_END)

    def remove_earlier(self) -> None:
        """Remove the files of other attempts."""
        for path in self._folder.iterdir():
            if path.stem in NAMES and path.suffix != f".{self._job.attempt}":
                path.unlink(missing_ok=True)

    def append(self, name: str, data: bytes) -> None:
        """Append to a file. Raises DiskFull and OSError; what was appended then does not count."""
        self._disk_space.require(len(data))
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._files[name], rest) :]
        self.sizes[name] += len(data)

    def sync(self) -> None:
        for file in self._files.values():
            os.fdatasync(file)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def path(self, name: str, attempt: int) -> Path:
        return self._folder / f"{name}.{attempt}"

    def _take_over(self, source: Path, path: Path) -> None:
        path.unlink(missing_ok=True)
        before = next((attempt for attempt in self._job.attempts if attempt.number == self._job.attempt - 1), None)
        if before is not None and before.error:
            # An attempt that an outage has interrupted, such as a full disk, has ended. A copy might need space that is missing.
            os.link(source, path)
        else:
            self._disk_space.require(source.stat().st_size)
            shutil.copyfile(source, path)
