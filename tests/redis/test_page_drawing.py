"""Drawing of pages: the cache of a document, its limits, and documents that are deleted while a page is drawn."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.disk_space import DiskSpace
from shared.documents.files import DocumentFiles
from shared.documents.models import Document
from shared.documents.page_drawings import CACHE_SECONDS, FOLDER, PageDrawings, PageDrawingsCleaner, PageLayout, read_page_text
from shared.documents.store import Documents
from shared.errors import DiskFull, JobFailure, NotFound
from shared.ids import CLAIM, DOCUMENT, new_id
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queue_names import PAGE_QUEUE
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.settings import Settings
from tests.odd_files import pdf
from workers.cpu.pages.draw import draw, raise_if_deleted
from workers.runtime.attempt import Attempt

LAYOUT = PageLayout(width=100.0, height=200.0, boxes=[[0, 1, 2, 3, 4]])


@pytest.fixture
def documents(redis_client: "redis.Redis", settings: Settings) -> Documents:
    return Documents(redis_client, settings)


@pytest.fixture
def files(settings: Settings) -> DocumentFiles:
    return DocumentFiles(settings.documents_dir)


@pytest.fixture
def document(documents: Documents, files: DocumentFiles) -> Document:
    """A PDF of one page, of which only the file is stored."""
    document_id, data = new_id(DOCUMENT), pdf("Boats sail at noon.")
    files.store(document_id, io.BytesIO(data), limit=len(data))
    collection = documents.ensure_collection("ada", "papers", "all-minilm")
    return documents.register(
        collection,
        document_id=document_id,
        name="boats.pdf",
        size=len(data),
        sha256="a" * 64,
        media_type="application/pdf",
        job_id="job_1",
    )[0]


def attempt_at(client: "redis.Redis", settings: Settings, document: Document, **spec: Any) -> Attempt:
    values = {"document_id": document.id, "page": 1, "width": 100, "start": 0, "end": 0, **spec}
    wake = CeleryBroker(client).wake
    JobSubmitter(client, settings, wake).submit_job(Submission(kind="draw", queue=PAGE_QUEUE, spec=values, owner="ada"))
    job = JobTransitions(client, settings, wake).claim(PAGE_QUEUE, "cpu/1", new_id(CLAIM))
    assert job is not None
    return Attempt(job, lambda buffer: None)


class Interruption(DiskSpace):
    """The disk, and another process that deletes a document at the moment at which its free space is looked at."""

    def __init__(self, folder: Path, documents: Documents, document: Document) -> None:
        super().__init__(folder, 0)
        self._documents = documents
        self._document = document

    def require(self, size: int = 0) -> None:
        self._documents.remove(self._document.id, self._document.collection_id)


def test_a_page_is_drawn_into_the_cache(
    redis_client: "redis.Redis", settings: Settings, documents: Documents, files: DocumentFiles, document: Document
) -> None:
    attempt = attempt_at(redis_client, settings, document)
    result = draw(attempt, documents, settings, DiskSpace(settings.data_dir, 0))
    picture = PageDrawings(files, document.id).picture(1, "", 100, 0, 0)
    assert picture is not None
    assert len(picture) == result["bytes"]
    assert PageDrawings(files, document.id).picture(1, "another text", 100, 0, 0) is None


def test_a_document_that_is_deleted_while_it_is_drawn_leaves_nothing(
    redis_client: "redis.Redis", settings: Settings, documents: Documents, files: DocumentFiles, document: Document
) -> None:
    attempt = attempt_at(redis_client, settings, document)
    with pytest.raises(NotFound):
        draw(attempt, documents, settings, Interruption(settings.data_dir, documents, document))
    assert not files.path(document.id, "original").parent.exists()
    with pytest.raises(NotFound):
        raise_if_deleted(attempt, documents, settings)


def test_a_page_that_cannot_be_drawn_ends_with_its_reason(
    redis_client: "redis.Redis", settings: Settings, documents: Documents, files: DocumentFiles, document: Document
) -> None:
    disk = DiskSpace(settings.data_dir, 0)
    with pytest.raises(JobFailure) as too_far:
        draw(attempt_at(redis_client, settings, document, page=2), documents, settings, disk)
    assert too_far.value.code == "page_unreadable"
    with pytest.raises(DiskFull):
        draw(
            attempt_at(redis_client, settings, document),
            documents,
            settings,
            DiskSpace(settings.data_dir, 2**62, largest_fraction=1.0),
        )
    files.path(document.id, "original").unlink()
    with pytest.raises(JobFailure) as dropped:
        draw(attempt_at(redis_client, settings, document), documents, settings, disk)
    assert dropped.value.code == "original_deleted"


def test_the_cache_forgets_what_was_used_longest_ago(files: DocumentFiles, tmp_path: Path) -> None:
    document_id = new_id(DOCUMENT)
    cache = PageDrawings(files, document_id)
    folder = files.path(document_id, "original").parent / FOLDER
    for page in range(1, 6):
        cache.store_picture(page, "text", 100, 0, 0, bytes(1000))
    for age, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        os.utime(path, (1000 - age, 1000 - age))
    assert cache.picture(1, "text", 100, 0, 0) == bytes(1000), "which makes it the latest"
    cache.shrink(max_files=3)
    assert [page for page in range(1, 6) if cache.picture(page, "text", 100, 0, 0)] == [1, 4, 5]
    cache.shrink(max_bytes=1500)
    assert len(list(folder.iterdir())) == 1
    cache.store_layout(1, "text", LAYOUT)
    assert cache.layout(1, "text") == LAYOUT
    assert cache.layout(1, "changed") is None


def test_what_was_not_used_for_a_day_is_deleted(files: DocumentFiles, settings: Settings) -> None:
    document_id, now = new_id(DOCUMENT), [1_000_000.0]
    cache = PageDrawings(files, document_id)
    folder = files.path(document_id, "original").parent / FOLDER
    cache.store_layout(1, "text", LAYOUT)
    cache.store_layout(2, "text", LAYOUT)
    old, new = sorted(folder.iterdir())
    os.utime(old, (now[0] - CACHE_SECONDS - 1,) * 2)
    os.utime(new, (now[0] - CACHE_SECONDS + 1,) * 2)
    (settings.documents_dir / "stray").mkdir()
    cleaner = PageDrawingsCleaner(settings.documents_dir, clock=lambda: now[0])
    cleaner.run_once(5000.0)
    assert list(folder.iterdir()) == [new]
    now[0] += 10
    cleaner.run_once(5001.0)
    assert list(folder.iterdir()) == [new], "it looks once an hour"
    cleaner.run_once(9000.0)
    assert list(folder.iterdir()) == []


def test_the_text_of_a_page_is_found_by_its_number(files: DocumentFiles) -> None:
    document_id = new_id(DOCUMENT)
    assert read_page_text(files, document_id, 1) is None
    with files.replace(document_id, "pages.jsonl") as target:
        target.write(b'{"number":1,"text":"One."}\n{"number":2,"text":"Two."}\n')
    assert [read_page_text(files, document_id, page) for page in (1, 2, 3)] == ["One.", "Two.", None]
