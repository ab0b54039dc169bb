"""Progress of an ingest: one bar per active file and one for all files; without a terminal, an occasional line of text."""

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cli.remote.bulk_ingest.uploader import FileOutcome
from cli.safe_text import safe_line
from enginehouse_client import Job, UploadProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TEXT_INTERVAL_SECONDS = 10.0
MAX_NAME_LENGTH = 40


class ProgressDisplay:
    """A context manager that writes to standard error, as standard output is for results. Thread-safe."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._ended = 0
        self._failed = 0
        self._lock = threading.Lock()
        self._bars = _progress_bars() if sys.stderr.isatty() else None
        self._total = None if self._bars is None else self._bars.add_task("all files", total=files, unit="")
        self._tasks: dict[str, TaskID] = {}
        self._last_text_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
        elif self._ended:
            self._print_text()

    def file_started(self, file: str) -> None:
        if self._bars is not None:
            with self._lock:
                self._tasks[file] = self._bars.add_task(_shorten(file), total=None, unit="")

    def upload_progressed(self, file: str, progress: UploadProgress) -> None:
        self._update(file, "sending", progress.sent, progress.size, "bytes")

    def job_polled(self, file: str, job: Job) -> None:
        progress = job.progress or {}
        self._update(file, job.phase, progress.get("done", 0), progress.get("total") or None, str(progress.get("unit", "")))

    def file_ended(self, file: str, outcomes: list[FileOutcome]) -> None:
        with self._lock:
            self._ended += bool(outcomes)
            self._failed += any(outcome.failed for outcome in outcomes)
            if self._bars is not None:
                task = self._tasks.pop(file, None)
                if task is not None:
                    self._bars.remove_task(task)
                if self._total is not None:
                    unit = f"{self._failed} not ready" if self._failed else ""
                    self._bars.update(self._total, completed=self._ended, unit=unit)
            elif time.monotonic() - self._last_text_at >= TEXT_INTERVAL_SECONDS:
                self._print_text()

    def _update(self, file: str, phase: str, done: int, total: int | None, unit: str) -> None:
        if self._bars is not None and (task := self._tasks.get(file)) is not None:
            description = f"{_shorten(file)} {safe_line(phase)}"
            self._bars.update(task, description=description, completed=done, total=total, unit=safe_line(unit))

    def _print_text(self) -> None:
        self._last_text_at = time.monotonic()
        print(f"{self._ended} of {self._files} files done, {self._failed} not ready", file=sys.stderr, flush=True)


def _progress_bars() -> "Progress":
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


def _shorten(name: str) -> str:
    shown = safe_line(name)
    return shown if len(shown) <= MAX_NAME_LENGTH else "…" + shown[-MAX_NAME_LENGTH + 1 :]
