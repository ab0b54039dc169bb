"""``enginehouse backup``: copies everything that a stack needs elsewhere, while it runs.

Redis comes first, as it was at one moment; then the documents, and then both halves of the index. What clients change meanwhile may be
newer than Redis, and ``enginehouse collections recover`` adds it after a restore. The manifest, with the digest of every file, is
written last: without it, a backup is not complete.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import redis

from cli.admin.redis_snapshot import save_snapshot
from cli.errors import CommandError
from cli.output import Output, plural, size_text
from shared.documents.data_state import DATA_VERSION
from shared.documents.data_state import FILE as DATA_FILE
from shared.documents.page_drawings import FOLDER as CACHE_FOLDER
from shared.documents.store import Documents
from shared.owners.closed_marker import FILE_NAME as CLOSED_MARKER
from shared.packaged_files import installed_version
from shared.settings import Settings
from workers.index.search_index import SearchIndex

FORMAT = 1
MANIFEST = "manifest.json"
REDIS = "redis/appendonlydir"
BLOCK = 1024 * 1024
# What of the data folder is copied as it is. Passwords are not: those of the new place stay in force.
TREES = ("documents", "archives", "files")
FILES = (DATA_FILE, CLOSED_MARKER)


@dataclass(kw_only=True)
class Manifest:
    """What a backup contains. ``files`` has the size and SHA-256 of each file by name."""

    format: int = FORMAT
    data_version: int = DATA_VERSION
    enginehouse_version: str = ""
    redis_version: str = ""
    created_at: str = ""
    keys: int = 0
    documents: int = 0
    vectors: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)


class _Target(Protocol):
    """Where the files of a backup go."""

    def add(self, name: str, source: Path) -> tuple[int, str]: ...


class _FolderTarget:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, source: Path) -> tuple[int, str]:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as stream, path.open("wb") as target:
            reader = _DigestReader(stream)
            shutil.copyfileobj(reader, target, BLOCK)
        return reader.size, reader.digest


class _TarTarget:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def add(self, name: str, source: Path) -> tuple[int, str]:
        with source.open("rb") as stream:
            # The open file keeps its size even if another one takes its name meanwhile.
            info = self._archive.gettarinfo(arcname=name, fileobj=stream)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o600
            reader = _DigestReader(stream)
            self._archive.addfile(info, reader)
        return reader.size, reader.digest


class _DigestReader:
    """A stream that knows the size and the digest of what was read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._stream.read(size)
        self._sha256.update(block)
        self.size += len(block)
        return block

    @property
    def digest(self) -> str:
        return self._sha256.hexdigest()


def create_backup(client: redis.Redis, url: str, settings: Settings, target: Path, *, out: Output) -> None:
    """Write a backup to a new folder, or to a new archive if the name ends in ``.tar``. Raises CommandError."""
    if target.exists():
        raise CommandError(f"{target} exists already: choose a name that does not.")
    if not settings.data_dir.is_dir():
        raise CommandError(f"There is no data folder {settings.data_dir}: select it with --data.")
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=settings.data_dir) as scratch, _open_target(target) as opened:
        manifest = _Backup(client, url, settings, opened, Path(scratch)).run()
    if out.as_json:
        print(json.dumps({name: value for name, value in asdict(manifest).items() if name != "files"}))
    else:
        size = sum(size for size, _ in manifest.files.values())
        print(
            f"{target}: {plural(manifest.documents, 'document')}, {plural(manifest.keys, 'key')} of Redis and "
            f"{plural(sum(manifest.vectors.values()), 'vector')}, {size_text(size)} in {plural(len(manifest.files), 'file')}."
        )
        print("It contains prompts, answers, documents and digests of API keys: keep it private.")


class _Backup:
    def __init__(self, client: redis.Redis, url: str, settings: Settings, target: _Target, scratch: Path) -> None:
        self._client: Any = client
        self._url = url
        self._settings = settings
        self._target = target
        self._scratch = scratch
        self._documents = Documents(client, settings)
        self._search_index = SearchIndex.from_settings(self._documents, settings)
        self._manifest = Manifest(
            enginehouse_version=installed_version(), created_at=datetime.now(UTC).isoformat(timespec="seconds")
        )

    def run(self) -> Manifest:
        manifest = self._manifest
        save_snapshot(self._url, self._scratch / "redis")
        manifest.redis_version = str(self._client.info("server").get("redis_version", ""))
        manifest.keys = int(self._client.dbsize())
        for path in sorted((self._scratch / "redis").iterdir()):
            self._add(f"{REDIS}/{path.name}", path)
        for tree in TREES:
            self._add_tree(self._settings.data_dir / tree, tree)
        manifest.documents = len({name.split("/")[1] for name in manifest.files if name.startswith("documents/")})
        self._add_index()
        for name in FILES:
            if (self._settings.data_dir / name).exists():
                self._add(name, self._settings.data_dir / name)
        path = self._scratch / MANIFEST
        path.write_text(json.dumps(asdict(manifest), indent=1))
        self._target.add(MANIFEST, path)
        return manifest

    def _add(self, name: str, path: Path) -> None:
        self._manifest.files[name] = self._target.add(name, path)

    def _add_tree(self, root: Path, name: str) -> None:
        for path in _entries(root):
            if path.is_dir() and path.name != CACHE_FOLDER:  # which can be made again
                self._add_tree(path, f"{name}/{path.name}")
            # Drafts begin with a dot.
            elif path.is_file() and not path.name.startswith("."):
                with suppress(FileNotFoundError):
                    self._add(f"{name}/{path.name}", path)

    def _add_index(self) -> None:
        for collection in self._documents.every_collection():
            source = self._settings.text_index_dir / f"{collection.index}.db"
            copy = self._scratch / "text.db"
            copy.unlink(missing_ok=True)
            if source.exists() and _copy_database(source, copy):
                self._add(f"text-index/{source.name}", copy)
            ids, vectors = self._scratch / "ids", self._scratch / "vectors"
            count = 0
            with ids.open("w") as id_file, vectors.open("wb") as vector_file:
                for refs, rows in self._search_index.read_vectors(collection.index):
                    id_file.writelines(f"{document_id}:{position}\n" for document_id, position in refs)
                    vector_file.write(rows)
                    count += len(refs)
            if count:
                self._manifest.vectors[collection.index] = count
                self._add(f"vectors/{collection.index}.ids", ids)
                self._add(f"vectors/{collection.index}.f32", vectors)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in order. While the stack runs, a folder may be deleted at any moment."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _copy_database(source: Path, target: Path) -> bool:
    """Copy a database that is in use; return False if it was deleted meanwhile, without making an empty one in its place."""
    try:
        live = sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True)
    except sqlite3.OperationalError:
        return False
    with closing(live), closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
    return True


@contextmanager
def _open_target(target: Path) -> Iterator[_Target]:
    """The target under another name, which it loses when the backup is complete. After an error, nothing remains."""
    draft = target.with_name(f"{target.name}.partial")
    if draft.exists():
        raise CommandError(f"{draft} exists: another backup is running, or one was interrupted. Delete it if none is running.")
    try:
        if target.suffix == ".tar":
            with open(draft, "xb", opener=_private) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
                yield _TarTarget(archive)
        else:
            draft.mkdir(mode=0o700)
            yield _FolderTarget(draft)
        draft.rename(target)
    except BaseException:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
