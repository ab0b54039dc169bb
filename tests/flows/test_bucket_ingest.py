"""``enginehouse ingest s3://…``: the objects of a bucket become documents, once each, and a watch sees what changes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from cli.errors import CommandError
from cli.remote.bulk_ingest.folder_watch import FolderState, find_changes
from cli.remote.bulk_ingest.s3_bucket import Bucket, BucketUnavailable
from cli.remote.bulk_ingest.uploader import FileOutcome
from testing.stack import Stack
from tests.flows.command import ends, run

boto3: Any = pytest.importorskip("boto3")
moto_server: Any = pytest.importorskip("moto.server")


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server of S3, which the environment names too."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="papers")
    yield client
    for entry in client.list_objects_v2(Bucket="papers").get("Contents", ()):
        client.delete_object(Bucket="papers", Key=entry["Key"])
    client.delete_bucket(Bucket="papers")
    server.stop()


def aws() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def put(storage: Any, **objects: str) -> None:
    for key, text in objects.items():
        storage.put_object(Bucket="papers", Key=key, Body=text.encode())


def listed(location: str, **options: Any) -> list[str]:
    return [file.name for file, _ in Bucket(location, **options).list_files()]


def test_objects_are_named_after_the_prefix_like_files_in_a_folder(storage: Any) -> None:
    keys = ("a.txt", "2024/b.txt", "2024/deep/c.md", "2024/.hidden/d.txt", "2024-old/e.txt", "2024/folder/")
    put(storage, **dict.fromkeys(keys, "text"))
    assert sorted(listed("s3://papers")) == ["2024-old/e.txt", "2024/b.txt", "2024/deep/c.md", "a.txt"]
    assert listed("s3://papers/2024") == listed("s3://papers/2024/") == ["b.txt", "deep/c.md"]
    assert listed("s3://papers/2024/b.txt") == ["b.txt"]
    assert listed("s3://papers/2024", include=["*.md"], prefix="x/") == ["x/deep/c.md"]


def test_a_bucket_is_ingested_and_again_without_sending_it(stack: Stack, storage: Any) -> None:
    put(storage, **{"in/one.txt": "The first of two papers.", "in/two.txt": "The second of two papers."})
    done = run(stack, "ingest", "s3://papers/in", "-c", "bucket", "--json", **aws())
    assert ends(done) == {"one.txt": ("ready", False), "two.txt": ("ready", False)}, done.stderr
    again = run(stack, "ingest", "s3://papers/in", "-c", "bucket", "--json", **aws())
    assert ends(again) == {"one.txt": ("ready", True), "two.txt": ("ready", True)}, again.stderr
    missing = run(stack, "ingest", "s3://none/in", "-c", "bucket", **aws())
    assert (missing.returncode, "s3://none/in cannot be listed" in missing.stderr) == (2, True), missing.stderr


def test_a_watch_sees_new_changed_and_removed_objects(storage: Any, tmp_path: Path) -> None:
    bucket, state, later = Bucket("s3://papers"), FolderState(tmp_path / "state"), time.time() + 3600

    def changes() -> tuple[list[str], list[str]]:
        found = find_changes(state, bucket.list_files(), now=later)
        for file, version in found.files:
            state.record(file, version, [FileOutcome(file.name, "ready", "", f"doc_{file.name}")])
        return [file.name for file, _ in found.files], list(found.removed)

    put(storage, a="one", b="two")
    assert changes() == (["a", "b"], [])
    assert changes() == ([], [])
    put(storage, b="more than two")
    storage.delete_object(Bucket="papers", Key="a")
    assert changes() == (["b"], ["a"])
    stop = Event()
    rounds = bucket.wait_for_changes(stop, seconds=0.01)
    next(rounds)
    stop.set()
    assert list(rounds) == []


def test_a_location_without_a_bucket_and_a_missing_object_say_so(storage: Any, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="names no bucket"):
        Bucket("s3:///in")
    with pytest.raises(BucketUnavailable, match="could not be read"):
        Bucket("s3://papers").download("missing", tmp_path / "target")
