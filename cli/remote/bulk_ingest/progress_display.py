"""How an ingest looks while it goes on: a bar for each file under way and one for all; without a terminal, a line now and then."""

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cli.remote.bulk_ingest.uploader import FileOutcome
from enginehouse_client import Job, UploadProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_SECONDS = 10.0
LONGEST_NAME = 40


class ProgressDisplay:
    """Shown on standard error, as standard output is for the ends. A context manager; told from many threads."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._ended = 0
        self._failed = 0
        self._lock = threading.Lock()
        self._bars = _bars() if sys.stderr.isatty() else None
        self._all = None if self._bars is None else self._bars.add_task("all files", total=files, unit="")
        self._of: dict[str, TaskID] = {}
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif self._ended:
            self._say()

    def begin(self, file: str) -> None:
        if self._bars is not None:
            with self._lock:
                self._of[file] = self._bars.add_task(_short(file), total=None, unit="")

    def upload_progressed(self, file: str, upload_progressed: UploadProgress) -> None:
        self._update(file, "sending", upload_progressed.upload_progressed, upload_progressed.size, "bytes")

    def job_polled(self, file: str, job: Job) -> None:
        told = job.progress or {}
        self._update(file, job.phase, told.get("done", 0), told.get("total") or None, str(told.get("unit", "")))

    def end(self, file: str, outcomes: list[FileOutcome]) -> None:
        with self._lock:
            self._ended += bool(outcomes)
            self._failed += any(end.failed for end in outcomes)
            if self._bars is not None:
                task = self._of.pop(file, None)
                if task is not None:
                    self._bars.remove_task(task)
                if self._all is not None:
                    unit = f"{self._failed} not ready" if self._failed else ""
                    self._bars.update(self._all, completed=self._ended, unit=unit)
            elif time.monotonic() - self._told >= QUIET_SECONDS:
                self._say()

    def _update(self, file: str, phase: str, done: int, total: int | None, unit: str) -> None:
        if self._bars is not None and (task := self._of.get(file)) is not None:
            self._bars.update(task, description=f"{_short(file)} {phase}", completed=done, total=total, unit=unit)

    def _say(self) -> None:
        self._told = time.monotonic()
        print(f"{self._ended} of {self._files} files have ended, {self._failed} are not ready", file=sys.stderr, flush=True)


def _bars() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=False,
    )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "…" + name[-LONGEST_NAME + 1 :]
