"""``enginehouse ingest --watch``: which files of a folder or bucket are new, changed or removed since they were last sent.

A folder is listed after each event of the file system, and once a minute, because network file systems do not report changes
made on other machines. So a lost or repeated event does no harm.

A state file records the size, the time and the document of each file. It saves reading all files again, and is the only record of
files removed while no watch ran. If it is lost, files that the server has are recognised by their bytes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

from cli.remote.bulk_ingest.file_discovery import InputFile, find_files
from cli.remote.bulk_ingest.uploader import PERMANENT, FileOutcome

SETTLE_SECONDS = 2.0
"""A file that changed less than this ago may still be written."""

RESCAN_SECONDS = 60.0


@dataclass(frozen=True)
class Version:
    """What tells two contents of a file apart without reading it: its size, and when it was changed, in nanoseconds."""

    size: int
    changed_at: int


WatchedFile = tuple[InputFile, Version]


class WatchedSource(Protocol):
    """What is watched: a folder, or a bucket. ``identity`` distinguishes it from others in the records of watches."""

    @property
    def identity(self) -> str: ...

    def list_files(self) -> Sequence[WatchedFile]: ...

    def wait_for_changes(self, stop: Event) -> Iterator[None]: ...


@dataclass(frozen=True)
class FileState:
    """A file when it was sent, and what became of it."""

    size: int
    changed_at: int
    document: str | None
    status: str


@dataclass(frozen=True)
class Changes:
    """Files to send, with their versions before they are read; removed names; and whether a file must wait because it may still be
    written."""

    files: Sequence[WatchedFile]
    removed: Sequence[str]
    unsettled: bool


class FolderState:
    """The recorded state of the files of one source. Each change is appended to the state file immediately, so that the next run
    knows it, however this one ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._files: dict[str, FileState] = {}
        with suppress(FileNotFoundError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, TypeError):  # a line that a crash has cut
                    name, entry = json.loads(line)
                    if entry is None:
                        self._files.pop(name, None)
                    else:
                        self._files[name] = FileState(**entry)

    @property
    def files(self) -> Mapping[str, FileState]:
        return self._files

    def forget_unknown(self, documents: Iterable[str]) -> None:
        """Forget files whose document the server no longer has, or that may be read when they are sent again. The state file is
        written again without them and without what later lines have changed."""
        existing = set(documents)
        # An archive itself has no document.
        known = existing | ({None} if existing else set())
        with self._lock:
            self._files = {
                name: entry for name, entry in self._files.items() if entry.document in known and entry.status in PERMANENT
            }
            self._replace_file()

    def record(self, file: InputFile, version: Version, outcomes: Sequence[FileOutcome]) -> None:
        """Remember what became of a file. ``version`` is from before it was read: a later change is then noticed."""
        only = outcomes[0] if len(outcomes) == 1 else None
        document, status = (only.document, only.status) if only else (None, "ready")
        entry = FileState(version.size, version.changed_at, document, status)
        with self._lock:
            self._files[file.name] = entry
            self._append(file.name, entry)

    def forget(self, name: str) -> str | None:
        """Forget a file; returns its document if no other file has become the same one."""
        with self._lock:
            document = self._files.pop(name).document
            self._append(name, None)
            return None if any(entry.document == document for entry in self._files.values()) else document

    def _append(self, name: str, entry: FileState | None) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(name, entry))

    def _replace_file(self) -> None:
        """Write all files in one step, so that a crash leaves the old file or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text("".join(_line(name, entry) for name, entry in self._files.items()), encoding="utf-8")
        draft.replace(self._path)


def _line(name: str, entry: FileState | None) -> str:
    # It begins with a line end, because a crash may have left half a line.
    return f"\n{json.dumps([name, None if entry is None else asdict(entry)])}\n"


def state_path(*identity: object) -> Path:
    """The state file for one server, collection, folder and selection of files."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    digest = hashlib.sha256(json.dumps([str(part) for part in identity]).encode()).hexdigest()[:32]
    return base / "enginehouse" / "watch" / f"{digest}.json"


def find_changes(state: FolderState, found: Sequence[WatchedFile], *, now: float) -> Changes:
    """Compare what a source has with its recorded state. Nothing is removed if it has nothing (a folder that is not mounted)."""
    files: list[WatchedFile] = []
    unsettled = False
    for file, version in found:
        known = state.files.get(file.name)
        if known is not None and Version(known.size, known.changed_at) == version:
            continue
        if 0 <= now - version.changed_at / 1e9 < SETTLE_SECONDS:
            unsettled = True
        else:
            files.append((file, version))
    names = {file.name for file, _ in found}
    removed = [name for name in state.files if name not in names] if found else []
    return Changes(files, removed, unsettled)


@dataclass(frozen=True)
class WatchedFolder:
    """A folder, with the files in it that are selected. ``prefix`` is put before their names."""

    folder: Path
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    prefix: str = ""

    @property
    def identity(self) -> str:
        return str(self.folder.resolve())

    def __str__(self) -> str:
        return str(self.folder)

    def list_files(self) -> list[WatchedFile]:
        if not self.folder.is_dir():
            return []
        found: list[WatchedFile] = []
        for file in find_files([str(self.folder)], include=self.include, exclude=self.exclude, prefix=self.prefix):
            with suppress(FileNotFoundError):
                seen = file.path.stat()
                found.append((file, Version(seen.st_size, seen.st_mtime_ns)))
        return found

    def wait_for_changes(self, stop: Event) -> Iterator[None]:
        return wait_for_events(self.folder, stop)


def wait_for_events(folder: Path, stop: Event) -> Iterator[None]:
    """Yield after changes in a folder have paused, and at least once a minute, until ``stop`` is set."""
    from watchfiles import watch

    polling = False
    while not stop.is_set():
        if not folder.is_dir():
            stop.wait(SETTLE_SECONDS)
            yield
            continue
        try:
            for _ in watch(
                folder,
                watch_filter=None,
                stop_event=stop,
                rust_timeout=int(RESCAN_SECONDS * 1000),
                yield_on_timeout=True,
                force_polling=polling or None,
                raise_interrupt=True,
            ):
                yield
                if not folder.is_dir():
                    break
        except OSError:
            if polling:
                raise
            polling = True  # the system has no file watches left
