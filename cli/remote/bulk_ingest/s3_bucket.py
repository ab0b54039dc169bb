"""Files of a bucket of S3, or of a server with the same API, for ``enginehouse ingest s3://…``.

boto3 reads credentials, region and endpoint as Amazon's command does: from ``AWS_*`` variables, its files, or the machine's role.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from cli.errors import CommandError
from cli.remote.bulk_ingest.file_discovery import is_selected
from cli.remote.bulk_ingest.folder_watch import RESCAN_SECONDS, Version, WatchedFile

SCHEME = "s3://"


class BucketUnavailable(OSError):
    """A bucket could not be listed, or an object not be read; the message says why."""


@dataclass(frozen=True)
class BucketFile:
    """An object, which is downloaded when it is sent."""

    name: str
    key: str
    bucket: "Bucket"

    @contextmanager
    def local(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="enginehouse-") as folder:
            target = Path(folder, "object")
            self.bucket.download(self.key, target)
            yield target


class Bucket:
    """The objects below ``s3://BUCKET/PREFIX``, or the one with this key. A source of files to watch.

    An object is named by its key after the prefix, as a file by its path in a folder. Keys with a part that begins with a dot are left out.
    """

    def __init__(self, location: str, *, include: Sequence[str] = (), exclude: Sequence[str] = (), prefix: str = "") -> None:
        """``prefix`` is put before all names. Raises CommandError for a location without a bucket, and if boto3 is not installed."""
        self.bucket, _, self._key = location.removeprefix(SCHEME).partition("/")
        if not self.bucket:
            raise CommandError(f"{location} names no bucket. Write {SCHEME}BUCKET/PREFIX.")
        self._include, self._exclude, self._prefix = include, exclude, prefix
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise CommandError("Buckets need boto3. Install it with: pip install 'enginehouse[s3]'") from None
        self._errors = (BotoCoreError, ClientError)
        try:
            self._client: Any = boto3.client("s3")
        except (BotoCoreError, ValueError) as error:
            raise CommandError(f"{SCHEME}{self.bucket}: {error}") from None

    @property
    def identity(self) -> str:
        """What distinguishes this source from others in the records of watches."""
        return f"{self._client.meta.endpoint_url} {SCHEME}{self.bucket}/{self._key}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self._key}"

    def list_files(self) -> list[WatchedFile]:
        """All files with their versions. Raises BucketUnavailable."""
        found: list[WatchedFile] = []
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key):
                for entry in page.get("Contents", ()):
                    name = self._name(entry["Key"])
                    if name is not None and is_selected(name, self._include, self._exclude):
                        version = Version(entry["Size"], int(entry["LastModified"].timestamp() * 1e9))
                        found.append((BucketFile(self._prefix + name, entry["Key"], self), version))
        except self._errors as error:
            raise BucketUnavailable(f"{self} cannot be listed: {error}") from error
        return found

    def wait_for_changes(self, stop: Event, seconds: float = RESCAN_SECONDS) -> Iterator[None]:
        """Yield once in ``seconds``, until ``stop`` is set: a bucket reports no changes."""
        while not stop.wait(seconds):
            yield

    def download(self, key: str, target: Path) -> None:
        """Raises BucketUnavailable, and OSError for the target."""
        try:
            self._client.download_file(self.bucket, key, str(target))
        except self._errors as error:
            raise BucketUnavailable(f"it could not be read: {error}") from error

    def _name(self, key: str) -> str | None:
        """The name of an object; None for one beside the prefix, such as ``reports-old/a`` for ``reports``, and for a hidden one."""
        if key == self._key:
            name = key.rpartition("/")[2]
        elif self._key in ("", key[: len(self._key)]) and (self._key[-1:] in ("", "/") or key[len(self._key)] == "/"):
            name = key[len(self._key) :].removeprefix("/")
        else:
            return None
        return name if name and not name.endswith("/") and not any(part.startswith(".") for part in name.split("/")) else None


def bucket_files(
    locations: Sequence[str], *, include: Sequence[str] = (), exclude: Sequence[str] = (), prefix: str = ""
) -> list[BucketFile]:
    """The files of several buckets, each with a name of its own. Raises CommandError."""
    found: dict[tuple[str, str], BucketFile] = {}
    for location in locations:
        bucket = Bucket(location, include=include, exclude=exclude, prefix=prefix)
        try:
            for file, _ in bucket.list_files():
                assert isinstance(file, BucketFile)
                found.setdefault((bucket.bucket, file.key), file)
        except BucketUnavailable as error:
            raise CommandError(str(error)) from None
    names = Counter(file.name for file in found.values())
    return [
        file if names[file.name] == 1 else BucketFile(f"{prefix}{bucket}/{file.key}", file.key, file.bucket)
        for (bucket, _), file in found.items()
    ]
