"""``enginehouse restore``: makes a data folder from a backup, for a stack that does not run.

Everything is copied into a folder beside and compared with the digests of the manifest before anything takes its place. The vectors go
through a Chroma server: the one in ``ENGINEHOUSE_CHROMA_URL``, else one that is started for the restore.
"""

import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from cli.admin.backup import FORMAT, MANIFEST, REDIS, Manifest
from cli.errors import CommandError
from cli.local.data_folder_lock import data_folder_locked
from cli.local.process_commands import chroma_command, environment_of
from cli.local.redis_server import free_port, start_redis
from cli.output import Output, plural
from shared.documents.data_state import DATA_VERSION
from shared.documents.descriptions import document_folders
from shared.redis_connection import connect
from shared.settings import Settings
from workers.index.vector_store import VectorStore

NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}/){0,3}[A-Za-z0-9_-][A-Za-z0-9._-]{0,120}")
BLOCK = 1024 * 1024
VECTOR_BATCH = 1000
CHROMA_SECONDS = 120.0


def restore_backup(source: Path, settings: Settings, *, with_redis: bool, external_chroma: bool, out: Output) -> None:
    """Restore a backup into an empty data folder. Raises CommandError."""
    data = settings.data_dir
    with data_folder_locked(data, os.getpid()):
        _require_empty(settings, with_redis=with_redis)
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=data) as scratch_name:
            scratch = Path(scratch_name)
            manifest = _copy_and_verify(source, scratch)
            _move_into_place(scratch, data, with_redis=with_redis)
            vectors = _restore_vectors(scratch / "vectors", manifest, settings, external=external_chroma)
        keys = _count_keys(data) if with_redis else None
    if out.as_json:
        print(json.dumps({"documents": manifest.documents, "vectors": vectors, "keys": keys, "created_at": manifest.created_at}))
        return
    print(
        f"Restored the backup of {manifest.created_at} into {data}: {plural(manifest.documents, 'document')} and {plural(vectors, 'vector')}."
    )
    if keys is None:
        print(f"Copy {source}/{REDIS} into the data folder of your Redis, before it starts.")
    else:
        print(
            f"Redis starts with {plural(keys, 'key')} (at the time of the backup: {manifest.keys}, some of which have expired since)."
        )
    print("Start the stack, and then run `enginehouse collections recover` and `enginehouse collections check`.")


def _require_empty(settings: Settings, *, with_redis: bool) -> None:
    used = next(document_folders(settings.documents_dir), None)
    if used is not None or (with_redis and (settings.data_dir / REDIS).exists()):
        raise CommandError(
            f"The data folder {settings.data_dir} is in use: restore into an empty one with --data, or move what is there away first."
        )


def _copy_and_verify(source: Path, scratch: Path) -> Manifest:
    """Copy all files of the backup; raise CommandError unless they are exactly those of its manifest."""
    found: dict[str, tuple[int, str]] = {}
    try:
        for name, stream in _read_files(source):
            if not NAME.fullmatch(name):
                raise CommandError(f"{source} contains a file with the name {name[:80]!r}, which no backup has.")
            found[name] = _copy(stream, scratch / name)
    except (OSError, tarfile.TarError) as error:
        raise CommandError(f"The backup {source} cannot be read: {error}.") from None
    if MANIFEST not in found:
        raise CommandError(f"{source} is not a complete backup: it has no {MANIFEST}.")
    try:
        fields = json.loads((scratch / MANIFEST).read_text())
        if fields["format"] != FORMAT or fields["data_version"] > DATA_VERSION:
            raise CommandError(
                f"{source} was made by a newer Enginehouse ({fields.get('enginehouse_version')}): install that release."
            )
        manifest = Manifest(**fields | {"files": {name: tuple(entry) for name, entry in fields["files"].items()}})
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(f"The manifest of {source} cannot be read ({error}).") from None
    wrong = sorted(
        name for name in manifest.files.keys() | found.keys() - {MANIFEST} if manifest.files.get(name) != found.get(name)
    )
    if wrong:
        raise CommandError(
            f"{source} is damaged: {len(wrong)} files differ from its manifest, such as {wrong[0]}. Nothing was restored."
        )
    return manifest


def _read_files(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                with path.open("rb") as stream:
                    yield str(path.relative_to(source)), stream
        return
    with tarfile.open(source) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, content


def _copy(stream: IO[bytes], target: Path) -> tuple[int, str]:
    target.parent.mkdir(parents=True, exist_ok=True)
    size, sha256 = 0, hashlib.sha256()
    with target.open("wb") as copy:
        while block := stream.read(BLOCK):
            copy.write(block)
            sha256.update(block)
            size += len(block)
    return size, sha256.hexdigest()


def _move_into_place(scratch: Path, data: Path, *, with_redis: bool) -> None:
    for path in sorted(scratch.iterdir()):
        if path.name in ("vectors", MANIFEST):
            continue
        if path.name == "redis":
            if with_redis:
                (data / "redis").mkdir(exist_ok=True)
                (scratch / REDIS).rename(data / REDIS)
            continue
        target = data / path.name
        if target.is_dir():  # empty, except for indexes and archives without a document
            shutil.rmtree(target)
        path.rename(target)


def _restore_vectors(folder: Path, manifest: Manifest, settings: Settings, *, external: bool) -> int:
    if not manifest.vectors:
        return 0
    with _chroma(settings, external=external) as url:
        store = VectorStore(url)
        for index, expected in manifest.vectors.items():
            for document_id, positions, rows in _vector_groups(folder / f"{index}.ids", folder / f"{index}.f32", expected):
                store.put_vectors(index, document_id, positions, rows)
            if (count := store.count_vectors(index)) < expected:
                raise CommandError(f"Chroma has {count} of the {expected} vectors of index {index}. Run the restore again.")
    return sum(manifest.vectors.values())


def _vector_groups(ids: Path, vectors: Path, count: int) -> Iterator[tuple[str, list[int], list[list[float]]]]:
    """The vectors in groups of one document, at most ``VECTOR_BATCH`` at a time."""
    width = vectors.stat().st_size // count
    with ids.open() as names, vectors.open("rb") as rows:
        for document_id, lines in itertools.groupby(names, key=lambda line: line.partition(":")[0]):
            while batch := list(itertools.islice(lines, VECTOR_BATCH)):
                positions = [int(line.partition(":")[2]) for line in batch]
                yield document_id, positions, [array("f", rows.read(width)).tolist() for _ in batch]


@contextmanager
def _chroma(settings: Settings, *, external: bool) -> Iterator[str]:
    """The URL of a Chroma server for the restored data folder."""
    if external:
        yield settings.chroma_url
        return
    port = free_port()
    url = f"http://:{secrets.token_urlsafe(16)}@127.0.0.1:{port}"
    process = subprocess.Popen(
        chroma_command(settings.data_dir / "chroma", port), env=environment_of(replace(settings, chroma_url=url))
    )
    try:
        _wait_for_chroma(process, port)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _wait_for_chroma(process: "subprocess.Popen[Any]", port: int) -> None:
    deadline = time.monotonic() + CHROMA_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=5):
                return
        except (TimeoutError, urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise CommandError("The Chroma server did not start, so the vectors were not restored.")


def _count_keys(data: Path) -> int:
    """Start Redis once with the restored data, which shows that it can read them; return the number of keys."""
    server = start_redis(data / "redis")
    try:
        return int(connect(server.url).dbsize())
    finally:
        server.stop()
