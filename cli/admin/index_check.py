"""``enginehouse collections check``: compares records, files and indexes, says where they differ, and mends it.

It reads while the stack runs. What came or went meanwhile is looked at a second time, so that it is not taken for a fault.
What has to be embedded anew is a job of the cpu workers; everything else is mended here.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import redis
from rich.console import Console

from shared.documents.files import DocumentFiles
from shared.documents.models import UNDER_WAY, Collection, Document
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.errors import IndexUnavailable, NotFound
from shared.ids import DOCUMENT, is_id
from shared.jobs.celery_broker import CPU_QUEUE, CeleryBroker
from shared.jobs.transitions import Lifecycle, Submission
from shared.settings import Settings
from workers.index.vector_store import VectorStore

UNUSED_SECONDS = 3600
"""A folder without a record may be an upload that is not entered yet; after an hour it is none."""

MOST_NAMED = 1000

Kind = Literal["unindexed", "leftover", "index", "folder", "pages lost"]


@dataclass(frozen=True)
class IndexFault:
    """Something that is not as it should be. ``mend`` does what can be done at once; None where that is nothing."""

    kind: Kind
    what: str
    says: str
    collection: Collection | None = None
    mend: Callable[[], None] | None = field(default=None, repr=False)


def check_collections(client: redis.Redis, settings: Settings, *, fix: bool, as_json: bool) -> int:
    """Check everything, and mend it if so wished; how many faults are left. Raises IndexUnavailable without a Chroma server."""
    check = IndexCheck(client, settings)
    faults = list(check.faults())
    console = Console(highlight=False)
    if not as_json:
        for fault in faults:
            console.print(f"{fault.kind}: {fault.what}: {fault.says}", soft_wrap=True, markup=False)
    left = check.mend(faults, console if not as_json else None) if fix else faults
    if as_json:
        found = [{"kind": fault.kind, "what": fault.what, "says": fault.says, "mended": fault not in left} for fault in faults]
        console.print_json(json.dumps(found))
    else:
        console.print(f"{len(faults)} faults in {check.collections} collections, {len(faults) - len(left)} mended.")
    return len(left)


class IndexCheck:
    """One look at all collections of all owners."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._settings = settings
        self._documents = Documents(client)
        self._lifecycle = Lifecycle(client, settings, CeleryBroker(client).wake)
        self._files = DocumentFiles(settings.documents_dir)
        self._texts = TextIndex(settings.text_index_dir)
        self._vectors = VectorStore(settings.chroma_url)
        self.collections = 0

    def faults(self) -> Iterator[IndexFault]:
        # Listed before the records are read: what is made meanwhile is then not seen rather than seen without its record.
        indexes = {*self._texts.list_indexes(), *self._vectors.list_indexes()}
        collections = list(self._documents.every_collection())
        self.collections = len(collections)
        for collection in collections:
            yield from self._of_collection(collection)
        used = {name for each in self._documents.every_collection() for name in (each.index, self._being_made(each)) if name}
        for index in sorted(indexes - used):
            yield IndexFault("index", index, "no collection answers from it", mend=lambda index=index: self._drop(index))  # type: ignore[misc]
        yield from self._unused_folders()

    def mend(self, faults: list[IndexFault], console: Console | None) -> list[IndexFault]:
        """Mend what can be mended; the rest."""
        left = []
        unindexed: dict[str, list[IndexFault]] = {}
        for fault in faults:
            if fault.mend is not None:
                fault.mend()
            elif fault.kind == "unindexed" and fault.collection is not None:
                unindexed.setdefault(fault.collection.id, []).append(fault)
            else:
                left.append(fault)
        for group in unindexed.values():
            if not self._index(group, console):
                left += group
        return left

    def _of_collection(self, collection: Collection) -> Iterator[IndexFault]:
        try:
            texts = self._texts.count_by_document(collection.index)
        except IndexUnavailable as error:
            yield IndexFault(
                "index", collection.index, error.message, collection, mend=lambda: self._texts.drop_index(collection.index)
            )
            texts = {}
        vectors = self._vectors.count_by_document(collection.index)
        known = set()
        for document_id in self._documents.document_ids(collection.id):
            known.add(document_id)
            found = texts.get(document_id, -1), vectors.get(document_id, 0)
            yield from self._of_document(collection, document_id, found)
        for document_id in sorted((texts.keys() | vectors.keys()) - known):
            yield self._leftover(collection, document_id, "it is in the index, and there is no such document")

    def _of_document(self, collection: Collection, document_id: str, found: tuple[int, int]) -> Iterator[IndexFault]:
        document = self._record(collection, document_id)
        if document is None or document.status in UNDER_WAY:
            return
        if document.status != "ready":
            if found != (-1, 0):
                yield self._leftover(collection, document_id, f"it is in the index, and is {document.status}")
            return
        whole = (document.chunks, document.chunks)
        if found == whole:
            return
        # It may have become ready, or been indexed anew, after the index was counted.
        latest = self._record(collection, document_id)
        current = self._documents.collection_by_id(collection.id)
        if latest is None or latest.status != "ready" or current.index != collection.index:
            return
        try:
            texts = self._texts.count_chunks(current.index, document_id)
        except IndexUnavailable:
            texts = 0
        vectors = self._vectors.count_vectors(current.index, document_id)
        if (texts, vectors) == (latest.chunks, latest.chunks):
            return
        if not self._files.path(document_id, "pages.jsonl").exists():
            yield IndexFault("pages lost", document_id, "its pages are gone: delete it, and upload it again", collection)
            return
        says = f"of {latest.chunks} chunks the index has the text of {texts} and the vectors of {vectors}"
        yield IndexFault("unindexed", document_id, says, collection)

    def _record(self, collection: Collection, document_id: str) -> Document | None:
        try:
            return self._documents.get(collection.owner, document_id)
        except NotFound:
            return None

    def _leftover(self, collection: Collection, document_id: str, says: str) -> IndexFault:
        def mend() -> None:
            self._texts.remove_document(collection.index, document_id)
            self._vectors.remove_vectors(collection.index, document_id)

        return IndexFault("leftover", document_id, says, collection, mend)

    def _being_made(self, collection: Collection) -> str:
        """The next index, if there is still a job that makes it."""
        job = self._lifecycle.get_job(collection.reindex_job) if collection.reindex_job else None
        return collection.next_index if job is not None and not job.status.final else ""

    def _drop(self, index: str) -> None:
        self._documents.abandon_reindex(index.partition(".")[0], index)
        self._texts.drop_index(index)
        self._vectors.drop_index(index)

    def _unused_folders(self) -> Iterator[IndexFault]:
        for folder in sorted(self._settings.documents_dir.glob(f"{DOCUMENT}_*")):
            if not is_id(DOCUMENT, folder.name) or self._documents.exists(folder.name):
                continue
            if time.time() - folder.stat().st_mtime > UNUSED_SECONDS:
                says = "there is no such document, and its folder is more than an hour old"
                yield IndexFault("folder", folder.name, says, mend=lambda name=folder.name: self._files.remove(name))  # type: ignore[misc]

    def _index(self, faults: list[IndexFault], console: Console | None) -> bool:
        """Have the cpu workers index these documents of one collection, and wait for it; whether it was done."""
        collection = faults[0].collection
        assert collection is not None
        spec: dict[str, Any] = {"collection_id": collection.id, "embedding_model": collection.embedding_model}
        if len(faults) <= MOST_NAMED:
            spec["only"] = [fault.what for fault in faults]
        else:
            spec |= {"chunk_tokens": collection.chunk_tokens, "chunk_overlap_tokens": collection.chunk_overlap_tokens}
        job = self._lifecycle.submit_job(Submission(kind="reindex", queue=CPU_QUEUE, spec=spec, owner=collection.owner)).id
        if console is not None:
            console.print(f"{collection.name}: {len(faults)} documents are indexed by {job}", soft_wrap=True)
        while (now := self._lifecycle.get_job(job)) is not None and not now.status.final:
            time.sleep(0.2)
        if now is None or now.status != "completed":
            if console is not None:
                error = now.error if now is not None else None
                console.print(f"{job} has not done it: {error['message'] if error else 'it was cancelled'}", soft_wrap=True)
            return False
        return True
