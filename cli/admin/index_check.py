"""``enginehouse collections check``: compares document records, files and indexes, reports differences, and fixes them.

No fix deletes an original: a folder without a record is moved to the trash, or, if it describes its document, left for
``enginehouse collections recover``. What such documents have in an index is left there too.

It runs while the stack is in use. A difference is checked a second time, because the document may just have changed.
Documents that must be embedded again are submitted as a job to the CPU workers; everything else is fixed here.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import redis
from rich.console import Console

from cli.output import plural
from cli.safe_text import safe_line
from shared.documents.data_state import MESSAGES, DataState
from shared.documents.descriptions import document_folders, read_description
from shared.documents.files import DocumentFiles
from shared.documents.index_health import clear_problem
from shared.documents.models import IN_PROGRESS, Collection, Document
from shared.documents.store import Documents
from shared.documents.trash import Trash
from shared.errors import IndexUnavailable, NotFound
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queries import JobQueries
from shared.jobs.queue_names import CPU_QUEUE
from shared.jobs.submission import JobSubmitter, Submission
from shared.settings import Settings
from workers.index.search_index import SearchIndex

UNUSED_SECONDS = 3600
"""A newer folder without a record may belong to an upload in progress."""

UPLOAD_SECONDS = 10.0
"""A newer folder with a description may get its record at any moment."""

POLL_SECONDS = 0.2

MAX_REPAIRED = 1000
"""With more documents to repair than this, the whole collection is reindexed."""

NO_TEXT = -1
"""Number of chunks of a document that the text index does not contain; one that it contains may have none."""

INDEX_WAIT_SECONDS = 20.0
"""A damaged index server starts again with an empty database, which takes seconds."""

ProblemKind = Literal[
    "records_incomplete",
    "no_record",
    "not_indexed",
    "orphaned",
    "unused_index",
    "damaged_index",
    "old_index",
    "index_unavailable",
    "unused_folder",
    "pages_lost",
    "miscounted",
]


@dataclass(frozen=True)
class IndexProblem:
    """A difference found. ``object`` is the id of a document, index or folder; ``fix`` is None if it cannot be fixed here."""

    kind: ProblemKind
    object: str
    message: str
    collection: Collection | None = None
    fix: Callable[[], Any] | None = field(default=None, repr=False)


def check_collections(client: redis.Redis, settings: Settings, *, fix: bool, as_json: bool) -> int:
    """Check all collections, and fix them if ``fix``; return the number of problems left. Raises IndexUnavailable."""
    check = IndexCheck(client, settings)
    problems = list(check.find_problems())
    console = Console(highlight=False)
    if not as_json:
        for problem in problems:
            line = safe_line(f"{problem.kind}: {problem.object}: {problem.message}")
            console.print(line, soft_wrap=True, markup=False)
    left = check.fix_problems(problems, console if not as_json else None) if fix else problems
    if as_json:
        report = [
            {"kind": problem.kind, "object": problem.object, "message": problem.message, "fixed": problem not in left}
            for problem in problems
        ]
        console.print_json(json.dumps(report), ensure_ascii=True)
    else:
        console.print(f"Collections: {check.collections}, problems: {len(problems)}, fixed: {len(problems) - len(left)}.")
    return len(left)


class IndexCheck:
    """A check of all collections of all owners."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._settings = settings
        self._documents = Documents(client, settings)
        self._submitter = JobSubmitter(client, settings, CeleryBroker(client).wake)
        self._queries = JobQueries(client)
        self._redis = client
        self._files = DocumentFiles(settings.documents_dir)
        self._trash = Trash(settings.trash_dir)
        self._state = DataState(client, settings)
        self._unrecorded: dict[str, str] = {}
        self._search_index = SearchIndex.from_settings(self._documents, settings)
        self.collections = 0

    def find_problems(self) -> Iterator[IndexProblem]:
        records = self._state.records()
        if records != "complete":
            message = f"{MESSAGES[records]}: run `enginehouse collections recover`"
            yield IndexProblem("records_incomplete", str(self._settings.data_dir), message)
        # Indexes are listed before records are read, so that an index created meanwhile is not reported as unused.
        try:
            indexes = set(self._list_indexes())
        except IndexUnavailable as error:
            yield IndexProblem("index_unavailable", "chroma", error.message)
            return
        self._unrecorded = self._described_folders()
        for document_id in sorted(self._unrecorded):
            message = "its folder describes it, but it has no record: run `enginehouse collections recover`"
            yield IndexProblem("no_record", document_id, message)
        unrecorded_collections = set(self._unrecorded.values())
        collections = list(self._documents.every_collection())
        self.collections = len(collections)
        for collection in collections:
            yield from self._check_collection(collection)
        used = {name for each in self._documents.every_collection() for name in (each.index, self._next_index(each)) if name}
        for index in sorted(indexes - used):
            if index.partition(".")[0] in unrecorded_collections:
                continue
            yield IndexProblem("unused_index", index, "no collection uses this index", fix=lambda index=index: self._drop(index))  # type: ignore[misc]
        yield from self._unused_folders()

    def fix_problems(self, problems: list[IndexProblem], console: Console | None) -> list[IndexProblem]:
        """Fix what can be fixed; return the problems left."""
        left = []
        not_indexed: dict[str, list[IndexProblem]] = {}
        for problem in problems:
            if problem.fix is not None:
                problem.fix()
            elif problem.kind == "not_indexed" and problem.collection is not None:
                not_indexed.setdefault(problem.collection.id, []).append(problem)
            else:
                left.append(problem)
        for group in not_indexed.values():
            if not self._reindex(group, console):
                left += group
        return left

    def _check_collection(self, collection: Collection) -> Iterator[IndexProblem]:
        miscounted = self._documents.miscounted_documents(collection)
        if miscounted:
            message = (
                f"{plural(len(miscounted), 'document')} of collection {collection.name} counted with a wrong status, "
                "which a process of an older version has changed"
            )
            yield IndexProblem("miscounted", collection.id, message, collection, lambda: self._documents.recount(collection))
        damaged = set()
        try:
            texts = self._search_index.text_counts(collection.index)
        except IndexUnavailable as error:
            yield IndexProblem(
                "damaged_index",
                collection.index,
                error.message,
                collection,
                fix=lambda: self._search_index.drop_text(collection.index),
            )
            texts = {}
            damaged.add(collection.index)
        try:
            vectors = self._search_index.vector_counts(collection.index)
        except IndexUnavailable as error:
            yield IndexProblem(
                "damaged_index",
                collection.index,
                error.message,
                collection,
                fix=lambda: self._search_index.drop_vectors(collection.index),
            )
            vectors = {}
        if collection.index not in damaged and self._search_index.has_old_words(collection.index):
            message = (
                f"some words are not found, as an older version made it: run `enginehouse collections reindex {collection.name}`"
            )
            yield IndexProblem("old_index", collection.index, message, collection)
        known = set()
        for document_id in self._documents.document_ids(collection.id):
            known.add(document_id)
            counts = texts.get(document_id, NO_TEXT), vectors.get(document_id, 0)
            yield from self._check_document(collection, document_id, counts)
        for document_id in sorted((texts.keys() | vectors.keys()) - known - self._unrecorded.keys()):
            elsewhere = self._documents.find(document_id)
            if elsewhere is not None and elsewhere.moved_from == collection.id and elsewhere.status in IN_PROGRESS:
                continue  # its move copies vectors from here, and removes it when it ends
            yield self._orphaned(collection, document_id, "the index contains it, but there is no such document")

    def _check_document(self, collection: Collection, document_id: str, counts: tuple[int, int]) -> Iterator[IndexProblem]:
        document = self._record(collection, document_id)
        if document is None or document.status in IN_PROGRESS:
            return
        if document.status != "ready":
            if counts != (NO_TEXT, 0):
                yield self._orphaned(collection, document_id, f"the index contains it, but its status is {document.status}")
            return
        if counts == (document.chunks, document.chunks):
            return
        # The document may have become ready, or the collection may have been reindexed, after the chunks were counted.
        latest = self._record(collection, document_id)
        try:
            current = self._documents.collection_by_id(collection.id, hidden=True)
        except NotFound:  # deleted while it was checked
            return
        if latest is None or latest.status != "ready" or current.index != collection.index:
            return
        try:
            texts = self._search_index.text_count(current.index, document_id)
        except IndexUnavailable:
            texts = 0
        try:
            vectors = self._search_index.vector_count(current.index, document_id)
        except IndexUnavailable:
            vectors = 0
        if (texts, vectors) == (latest.chunks, latest.chunks):
            return
        if not self._files.path(document_id, "pages.jsonl").exists():
            yield IndexProblem(
                "pages_lost", document_id, "its parsed pages are lost: delete the document and upload it again", collection
            )
            return
        message = f"the index has the text of {texts} and the vectors of {vectors} of its {latest.chunks} chunks"
        yield IndexProblem("not_indexed", document_id, message, collection)

    def _record(self, collection: Collection, document_id: str) -> Document | None:
        try:
            found = self._documents.get(collection.owner, document_id, hidden=True)
        except NotFound:
            return None
        return found if found.collection_id == collection.id else None

    def _orphaned(self, collection: Collection, document_id: str, message: str) -> IndexProblem:
        def remove() -> None:
            self._search_index.remove_from_index(collection.index, document_id)

        return IndexProblem("orphaned", document_id, message, collection, remove)

    def _next_index(self, collection: Collection) -> str:
        """The index that a running reindex builds, or ""."""
        job = self._queries.get_job(collection.reindex_job) if collection.reindex_job else None
        return collection.next_index if job is not None and not job.status.final else ""

    def _drop(self, index: str) -> None:
        self._documents.abandon_reindex(index.partition(".")[0], index)
        self._search_index.drop_index(index)

    def _unused_folders(self) -> Iterator[IndexProblem]:
        for name in document_folders(self._settings.documents_dir):
            if name in self._unrecorded or self._documents.exists(name):
                continue
            if self._age(name) > UNUSED_SECONDS:
                message = "there is no such document, and its folder, which does not describe one, is more than an hour old"
                yield IndexProblem(
                    "unused_folder",
                    name,
                    message,
                    fix=lambda name=name: self._trash.add(self._files, name),  # type: ignore[misc]
                )

    def _described_folders(self) -> dict[str, str]:
        """Documents without a record whose folders describe them, each with the id of its collection.

        An upload writes the description just before the record, so a new folder is not among them.
        """
        found = {}
        for name in document_folders(self._settings.documents_dir):
            if not self._documents.exists(name) and self._age(name) > UPLOAD_SECONDS:
                description = read_description(self._files, name)
                if description is not None:
                    found[name] = description.collection_id
        return found

    def _age(self, name: str) -> float:
        try:
            return time.time() - self._files.path(name, "original").parent.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _list_indexes(self) -> list[str]:
        deadline = time.monotonic() + INDEX_WAIT_SECONDS
        while True:
            try:
                return self._search_index.list_indexes()
            except IndexUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def _reindex(self, problems: list[IndexProblem], console: Console | None) -> bool:
        """Submit a reindex job for documents of one collection and wait for it; return whether it completed."""
        collection = problems[0].collection
        assert collection is not None
        spec: dict[str, Any] = {"collection_id": collection.id, "embedding_model": collection.embedding_model}
        if len(problems) <= MAX_REPAIRED:
            spec["only"] = [problem.object for problem in problems]
        else:
            spec |= {"chunk_tokens": collection.chunk_tokens, "chunk_overlap_tokens": collection.chunk_overlap_tokens}
        job = self._submitter.submit_job(Submission(kind="reindex", queue=CPU_QUEUE, spec=spec, owner=collection.owner)).id
        if console is not None:
            console.print(f"{collection.name}: {job} indexes {len(problems)} documents", soft_wrap=True)
        while (record := self._queries.get_job(job)) is not None and not record.status.final:
            time.sleep(POLL_SECONDS)
        if record is None or record.status != "completed":
            if console is not None:
                error = record.error if record is not None else None
                console.print(f"{job} did not complete: {error['message'] if error else 'it was cancelled'}", soft_wrap=True)
            return False
        clear_problem(self._redis, collection.id)
        return True
