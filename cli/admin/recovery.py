"""``enginehouse collections recover``: makes the records of documents again from their folders, after Redis was lost or rolled back.

Each folder describes its document (``shared.documents.descriptions``). A document whose chunks are complete in the index is ready at
once; any other is indexed again by a job, which parses the original only if the parsed pages are missing.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import redis

from cli.output import Output, plural
from cli.safe_text import safe_line
from shared.documents.data_state import DataState
from shared.documents.descriptions import (
    Description,
    IndexState,
    document_folders,
    read_description,
    read_index_state,
    remove_description,
)
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.documents.trash import Trash
from shared.errors import IndexUnavailable, TooMany
from shared.ids import JOB, new_id
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queue_names import CPU_QUEUE
from shared.jobs.submission import JobSubmitter, Submission
from shared.settings import Settings
from workers.cpu.indexer import read_parsed_pages
from workers.cpu.parsing.page_summary import summarize_pages
from workers.index.search_index import SearchIndex

UPLOAD_SECONDS = 2.0
"""An upload writes the description first and the record right after it. Folders without a record are looked at again after this time."""

FULL_QUEUE_SECONDS = 5.0


@dataclass
class Recovery:
    """What was looked at and changed. ``checked`` is the number of folders, ``missing`` that of those without a record;
    ``adopted`` are the collections that use another index now."""

    checked: int = 0
    missing: int = 0
    adopted: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    undescribed: list[str] = field(default_factory=list)

    @property
    def recovered(self) -> int:
        return len(self.ready) + len(self.jobs)

    def as_json(self) -> dict[str, object]:
        return {
            "checked": self.checked,
            "missing": self.missing,
            "recovered": self.recovered,
            "adopted": self.adopted,
            "ready": self.ready,
            "jobs": self.jobs,
            "duplicates": self.duplicates,
            "undescribed": self.undescribed,
        }


def recover_documents(
    client: redis.Redis, settings: Settings, *, out: Output, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Make all missing records and print what was done."""
    recovery = Recoverer(client, settings, report=out.print_note, sleep=sleep).recover()
    if out.as_json:
        out.print_json(recovery.as_json())
        return
    print(summary_of(recovery))
    for name in recovery.adopted:
        print(f"Collection {safe_line(name)} uses the index that its documents are in: the one in Redis was replaced since.")
    for document, other in recovery.duplicates.items():
        print(f"{document}: not recovered, as {other} has the same bytes")
    for document in recovery.undescribed:
        print(f"{document}: not recovered, as its folder has no description")
    if recovery.duplicates or recovery.undescribed:
        print("`enginehouse collections check --fix` moves these folders to the trash.")


def summary_of(recovery: Recovery) -> str:
    """What was found and done, as sentences."""
    if not recovery.checked:
        return "There are no folders of documents, so there was nothing to recover."
    checked = f"Checked {plural(recovery.checked, 'folder')} of documents:"
    if not recovery.missing:
        return f"{checked} each has its record, so there was nothing to recover."
    return (
        f"{checked} {recovery.missing} had no record. {plural(recovery.recovered, 'document')} recovered: {len(recovery.ready)} ready, "
        f"{len(recovery.jobs)} being indexed again."
    )


class Recoverer:
    """Makes records for the folders of one data folder."""

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        *,
        report: Callable[[str], None] = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``report`` is called with a sentence when the recovery has to wait."""
        self._report = report
        self._sleep = sleep
        self._documents = Documents(client, settings)
        self._submitter = JobSubmitter(client, settings, CeleryBroker(client).wake)
        self._files = DocumentFiles(settings.documents_dir)
        self._root = settings.documents_dir
        self._trash = Trash(settings.trash_dir)
        self._search_index = SearchIndex.from_settings(self._documents, settings)
        self._state = DataState(client, settings)
        self._counts: dict[str, tuple[dict[str, int], dict[str, int]]] = {}

    def recover(self) -> Recovery:
        recovery = Recovery()
        found: dict[str, Description] = {}
        recovery.checked, missing = self._without_record()
        recovery.missing = len(missing)
        for document_id in missing:
            description = read_description(self._files, document_id)
            if description is None:
                recovery.undescribed.append(document_id)
            else:
                found[document_id] = description
        states = {document_id: read_index_state(self._files, document_id) for document_id in found}
        names = self._recover_collections(found, states)
        recovery.adopted = self._adopt_indexes()
        # Versions of a name in their order. Of two documents with the same bytes, the one that was indexed wins.
        for document_id in sorted(found, key=lambda each: (states[each] is None, found[each].created_at)):
            self._recover_document(document_id, found[document_id], states[document_id], names, recovery)
        self._state.accept_records()
        return recovery

    def _without_record(self) -> tuple[int, list[str]]:
        """The number of folders, and those without a record."""
        folders = list(document_folders(self._root))
        missing = [document_id for document_id in folders if not self._documents.exists(document_id)]
        if not missing:
            return len(folders), []
        self._report(f"{plural(len(missing), 'folder')} of {len(folders):,} without a record; waiting for uploads that run now.")
        self._sleep(UPLOAD_SECONDS)
        return len(folders), [
            document_id
            for document_id in missing
            if not self._documents.exists(document_id) and self._files.path(document_id, "original").parent.exists()
        ]

    def _recover_collections(self, found: dict[str, Description], states: dict[str, IndexState | None]) -> dict[str, str]:
        """Make the collections of the documents, each with the index that has most of them; return their names by id."""
        names: dict[str, str] = {}
        members: dict[str, list[str]] = {}
        for document_id, description in found.items():
            members.setdefault(description.collection_id, []).append(document_id)
        for collection_id, ids in members.items():
            latest = max((found[each] for each in ids), key=lambda description: description.created_at)
            names[collection_id] = self._documents.recover_collection(latest, _most_common(states[each] for each in ids))
        return names

    def _adopt_indexes(self) -> list[str]:
        """Search each collection whose index is gone in the one that its documents name, if that exists: an older Redis does not know
        that the collection was reindexed. Returns the names of these collections."""
        adopted = []
        existing = set(self._search_index.list_indexes())
        for collection in self._documents.every_collection():
            if collection.index in existing:
                continue
            ids = list(self._documents.document_ids(collection.id))
            state = _most_common(read_index_state(self._files, each) for each in ids)
            if state is None or state.index not in existing:
                continue
            self._documents.adopt_index(collection.id, state)
            adopted.append(collection.name)
            texts, _ = self._counts_of(state.index)
            for document_id in ids:
                if document_id in texts:
                    self._documents.set_chunks(document_id, texts[document_id])
        return adopted

    def _recover_document(
        self, document_id: str, description: Description, state: IndexState | None, names: dict[str, str], recovery: Recovery
    ) -> None:
        job_id = new_id(JOB)
        outcome, other = self._documents.recover_document(
            document_id, description, collection=names[description.collection_id], job_id=job_id
        )
        if outcome == "duplicate":
            recovery.duplicates[document_id] = other
        elif outcome == "recovered":
            if self._make_ready(document_id, description, state, job_id):
                recovery.ready.append(document_id)
            else:
                recovery.jobs[document_id] = self._submit_ingest(document_id, description, job_id)

    def _make_ready(self, document_id: str, description: Description, state: IndexState | None, job_id: str) -> bool:
        """Make a document ready if its collection's index has all of its chunks; return whether it is."""
        collection = self._documents.collection_by_id(description.collection_id, hidden=True)
        if state is None or (state.index, state.embedding_revision) != (collection.index, collection.embedding_revision):
            return False
        try:
            with self._files.path(document_id, "chunks.jsonl").open("rb") as source:
                chunks = sum(1 for _ in source)
            summary = summarize_pages(read_parsed_pages(self._files, document_id))
        except (OSError, ValueError, TypeError):
            return False
        texts, vectors = self._counts_of(collection.index)
        if not chunks or (texts.get(document_id), vectors.get(document_id)) != (chunks, chunks):
            return False
        result = self._documents.finish(
            document_id, job_id, 1, "ready", reason=summary.reason, problems=summary.problems, pages=summary.pages, chunks=chunks
        )
        replaced = self._documents.get(description.owner, document_id).replaces if result == "ok" else ""
        if replaced:
            # An older version, whose removal was interrupted. Its original is kept, as a repair deletes none.
            remove_description(self._files, replaced)
            self._documents.remove(replaced, description.collection_id)
            self._search_index.remove_from_collection(description.collection_id, replaced)
            if self._files.path(replaced, "original").parent.exists():
                self._trash.add(self._files, replaced)
        return result in ("ok", "replaced")

    def _counts_of(self, index: str) -> tuple[dict[str, int], dict[str, int]]:
        if index not in self._counts:
            try:
                self._counts[index] = self._search_index.text_counts(index), self._search_index.vector_counts(index)
            except IndexUnavailable:
                self._counts[index] = {}, {}
        return self._counts[index]

    def _submit_ingest(self, document_id: str, description: Description, job_id: str) -> str:
        spec = {"document_id": document_id, "collection_id": description.collection_id, "name": description.name}
        submission = Submission(
            kind="ingest", queue=CPU_QUEUE, spec=spec, owner=description.owner, id=job_id, document=document_id
        )
        reported = False
        while True:
            try:
                return self._submitter.submit_job(submission).id
            except TooMany as error:
                if not reported:
                    self._report(f"{error.message} Waiting until {description.name} can be indexed again.")
                    reported = True
                self._sleep(FULL_QUEUE_SECONDS)


def _most_common(states: Iterable[IndexState | None]) -> IndexState | None:
    counted = Counter(state for state in states if state is not None)
    return counted.most_common(1)[0][0] if counted else None
