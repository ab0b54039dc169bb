"""Originals that could not be read are deleted after a time; those of other documents stay."""

import os
import time
from pathlib import Path

import pytest
import redis

from shared.documents.models import ENDED, IN_PROGRESS, UNREADABLE
from shared.documents.store import Documents
from shared.ids import DOCUMENT, JOB, new_id
from shared.settings import Settings
from workers.cpu.unreadable_files import SWEEP_SECONDS, UnreadableFiles

SECONDS = 1000.0


@pytest.mark.parametrize("status", [*ENDED, *IN_PROGRESS])
def test_only_old_unreadable_originals_are_deleted(redis_client: redis.Redis, tmp_path: Path, status: str) -> None:
    documents = Documents(redis_client, Settings(data_dir=tmp_path / "data"))
    collection = documents.ensure_collection("", "papers", "minilm")
    originals = []
    for number, age in enumerate((SECONDS + 100, SECONDS - 100)):
        document, _ = documents.register(
            collection,
            document_id=new_id(DOCUMENT),
            name=f"{number}.pdf",
            size=1,
            sha256=str(number) * 64,
            media_type="application/pdf",
            job_id=new_id(JOB),
        )
        redis_client.hset(f"eh:document:{document.id}", "status", status)
        originals.append(tmp_path / document.id / "original")
        originals[-1].parent.mkdir()
        originals[-1].write_bytes(b"x")
        os.utime(originals[-1], (time.time() - age, time.time() - age))
    files = UnreadableFiles(tmp_path, documents, SECONDS)
    files.run_once(0.0)
    assert [original.exists() for original in originals] == [status not in UNREADABLE, True]


def test_folders_are_looked_at_every_ten_minutes(tmp_path: Path, redis_client: redis.Redis) -> None:
    looks: list[float] = []
    files = UnreadableFiles(tmp_path, Documents(redis_client, Settings(data_dir=tmp_path / "data")), SECONDS)
    files._unread_originals = lambda: iter(looks.append(0.0) or [])  # type: ignore[method-assign, func-returns-value]
    for now in (0.0, SWEEP_SECONDS - 1, SWEEP_SECONDS + 1):
        files.run_once(now)
    assert len(looks) == 2
