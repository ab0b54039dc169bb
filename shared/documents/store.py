"""Document store: collections and documents in Redis.

Each change is one Lua script in ``lua/``. Writes by workers carry the job id and attempt number, so a stale attempt changes
nothing.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict
from dataclasses import replace as replace_fields
from functools import partial
from typing import Any, Literal, Self, cast

import redis

from shared.documents import keys
from shared.documents.descriptions import Description, IndexState, read_description, write_description
from shared.documents.files import DocumentFiles
from shared.documents.filters import Scalar
from shared.documents.index_health import clear_problem, report_problem
from shared.documents.models import (
    STATUSES,
    Collection,
    Document,
    Problem,
    Status,
    check_collection_name,
    check_document_name,
)
from shared.documents.passwords import Passwords
from shared.documents.scripts import DocumentScripts
from shared.errors import Conflict, NameTaken, NotFound, QuotaExceeded
from shared.ids import COLLECTION, DOCUMENT, is_id, new_id
from shared.lua_scripts import Clock
from shared.redis_connection import redis_time_ms
from shared.redis_lists import list_page
from shared.rights import ALL_RIGHTS, Rights
from shared.settings import Settings

logger = logging.getLogger(__name__)

Setting = str | int | None

RESTORE_SECONDS = 60
"""How long a deleted document or collection can be restored. Until then it is hidden."""

# Documents of one script, during which Redis does nothing else.
STATUS_BATCH = 500

MoveResult = tuple[str, str]

DocumentUpdateResult = Literal["ok", "gone", "stale", "replaced"]
"""Result of a worker's write: done; the document was deleted; another attempt has taken over; or a newer version of the document
was ready first."""


class Documents:
    """Collections and documents of all owners. ``client`` must decode its responses and may be shared by threads.

    ``settings`` has the limits of owners without limits of their own. ``clock`` returns Unix milliseconds and is for tests.
    """

    def __init__(self, client: "redis.Redis", settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._redis: Any = client  # redis-py types every response as possibly awaitable
        self._scripts = DocumentScripts(client, clock=clock)
        self._files = DocumentFiles(settings.documents_dir)
        self._rights = ALL_RIGHTS

    def restricted_to(self, rights: Rights) -> Self:
        """The same documents for a key with these rights: lists leave out other collections, and each use of one raises Forbidden."""
        restricted = copy(self)
        restricted._rights = rights
        return restricted

    def passwords(self, files: DocumentFiles, seconds: int) -> Passwords:
        """The store of document passwords, which expire after ``seconds``."""
        return Passwords(self._redis, files, seconds)

    def now_ms(self) -> int:
        """The time by the clock of Redis."""
        return redis_time_ms(self._redis)

    # Collections

    def ensure_collection(self, owner: str, name: str, embedding_model: str) -> Collection:
        """Return the owner's collection with this name; create it if it does not exist. Raises InvalidValue for an invalid name."""
        return self.make_collection(owner, name, embedding_model)[0]

    def make_collection(
        self,
        owner: str,
        name: str,
        embedding_model: str,
        options: Mapping[str, Setting] | None = None,
        *,
        collection_id: str = "",
    ) -> tuple[Collection, bool]:
        """Create a collection with its own settings and return it with True, or return an existing one unchanged with False.

        Raises InvalidValue for an invalid name, and QuotaExceeded.
        """
        self._rights.require_collection(name)
        collection_id = collection_id or new_id(COLLECTION)
        existing_id, limit = self._scripts.ensure_collection(
            id=collection_id,
            owner=owner,
            name=check_collection_name(name),
            embedding_model=embedding_model,
            limit=self._settings.max_collections,
            options=_fields(options or {}),
        )
        if limit:
            raise QuotaExceeded("collections", int(limit))
        return self.collection_by_id(existing_id), existing_id == collection_id

    def configure(self, collection_id: str, **changes: Setting) -> Collection:
        """Change the settings of a collection; those of chunks apply to documents that are ingested later. Raises NotFound."""
        self._scripts.update_if_exists(record=f"collection:{collection_id}", changes=_fields(changes))
        return self.collection_by_id(collection_id)

    def note_use(self, collection_id: str) -> None:
        """Note that a collection is in use, which postpones its expiry."""
        self._scripts.update_if_exists(record=f"collection:{collection_id}", changes={"last_active_at": self.now_ms()})

    def record_revision(self, collection_id: str, revision: str) -> str:
        """Record the revision of the embedding model unless one is recorded already; return the recorded revision.

        Raises NotFound if the collection was deleted.
        """
        recorded = self._scripts.record_revision(collection=collection_id, revision=revision)
        if recorded is None:
            raise NotFound("The collection has been deleted.", param="collection")
        return str(recorded)

    def begin_reindex(self, collection_id: str, next_index: str, job: str) -> str:
        """Record that a job builds the next index; return the unfinished index that it replaces, or "". Raises NotFound."""
        replaced = self._scripts.begin_reindex(collection=collection_id, next_index=next_index, job=job)
        if replaced is None:
            raise NotFound("The collection has been deleted.", param="collection")
        return str(replaced)

    def switch_index(
        self, collection_id: str, next_index: str, *, model: str, revision: str, **options: int | None
    ) -> str | None:
        """Switch searches to the next index; return the previous index, or "" if the switch was made before.

        Returns None if the collection was deleted or another job builds its next index.
        """
        changes = {"embedding_model": model, "embedding_revision": revision, **_fields(options)}
        previous = self._scripts.switch_index(collection=collection_id, next_index=next_index, changes=changes)
        return None if previous is None else str(previous)

    def abandon_reindex(self, collection_id: str, next_index: str) -> None:
        """Clear the next index if it is still ``next_index``."""
        self._scripts.abandon_reindex(collection=collection_id, next_index=next_index)

    def note_index_problem(self, collection_id: str, reason: str) -> None:
        """Note why a collection has to be reindexed, and log it once."""
        if self._redis.exists(keys.collection(collection_id)) and report_problem(self._redis, collection_id, reason):
            logger.warning("collection %s has to be reindexed: %s", collection_id, reason)

    def clear_index_problem(self, collection_id: str) -> None:
        """Remove the note that a collection has to be reindexed."""
        clear_problem(self._redis, collection_id)

    def set_chunks(self, document_id: str, chunks: int) -> None:
        """Set a document's number of chunks after it was chunked again or one chunk was deleted."""
        self._scripts.update_if_exists(record=f"document:{document_id}", changes={"chunks": chunks})

    def find_collection(self, owner: str, name: str) -> Collection:
        """The owner's collection with this name. Raises NotFound."""
        self._rights.require_collection(name)
        collection_id = self._redis.hget(keys.names(owner), name)
        if collection_id is None:
            raise NotFound(f"There is no collection {name[:80]!r}. Upload a document to create it.", param="collection")
        return self.collection_by_id(collection_id)

    def find_deleted_collection(self, owner: str, name: str) -> Collection:
        """The collection of this name that the owner has deleted last and can still restore. Raises NotFound."""
        self._rights.require_collection(name)
        collection_id = self._redis.hget(keys.deleted_collections(owner), name)
        if collection_id is None:
            raise NotFound(
                f"No collection {name[:80]!r} can be restored. A deleted collection can be for {RESTORE_SECONDS} s.",
                param="collection",
            )
        return self.collection_by_id(collection_id, hidden=True)

    def collection_by_id(self, collection_id: str, *, hidden: bool = False) -> Collection:
        """The collection with this id, for workers. One that is hidden until it is deleted is found only if ``hidden``. Raises
        NotFound if it was deleted."""
        fields = self._redis.hgetall(keys.collection(collection_id))
        if not fields or ("delete_at" in fields and not hidden):
            raise NotFound("The collection has been deleted.", param="collection")
        self._rights.require_collection(fields["name"])
        return Collection.from_hash(fields)

    def list_collections(self, owner: str) -> list[Collection]:
        """All collections of an owner, sorted by name."""
        named = sorted(self._redis.hgetall(keys.names(owner)).items())
        ids = [collection_id for name, collection_id in named if self._rights.allows_collection(name)]
        with self._redis.pipeline(transaction=False) as pipeline:
            for collection_id in ids:
                pipeline.hgetall(keys.collection(collection_id))
            return [Collection.from_hash(fields) for fields in pipeline.execute() if fields]

    def every_collection(self) -> Iterator[Collection]:
        """The collections of all owners, those that are hidden included, unordered."""
        for key in self._redis.scan_iter(keys.names("*"), count=500):
            yield from self.list_collections(key.removeprefix(keys.names("")))
        for collection_id in self._redis.zrange(keys.deleted_collections(), 0, -1):
            with suppress(NotFound):  # deleted in the meantime
                collection = self.collection_by_id(collection_id, hidden=True)
                if collection.delete_at is not None:  # else it was restored, and may be among the others
                    yield collection

    def exists(self, document_id: str) -> bool:
        """Whether any owner has a document with this id."""
        return bool(self._redis.exists(keys.document(document_id)))

    def count_documents(self, collection_id: str) -> int:
        """How many documents a collection has, without those that are hidden."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zcard(keys.listing(collection_id))
            pipeline.scard(keys.deleted(collection_id))
            listed, hidden = pipeline.execute()
        return max(0, int(listed) - int(hidden))

    def drop_collection(self, collection: Collection) -> bool:
        """Delete the record of a collection, so that it is hidden at once; a delete job removes its documents and vectors.

        Returns False if it was already gone.
        """
        return bool(self._scripts.drop_collection(id=collection.id, owner=collection.owner, name=collection.name))

    def delete_collection_later(self, collection: Collection) -> int:
        """Hide a collection with its documents, and delete it after ``RESTORE_SECONDS``; return the time in milliseconds until which
        it can be restored. Jobs of its documents go on. Raises NotFound if it was deleted meanwhile."""
        delete_at = self._scripts.delete_collection_later(id=collection.id, keep_ms=RESTORE_SECONDS * 1000)
        if delete_at is None:
            raise NotFound("The collection has been deleted.", param="collection")
        return int(delete_at)

    def restore_collection(self, collection: Collection) -> None:
        """Show a hidden collection again. Raises NotFound if its time is over, Conflict if another collection has its name, and
        QuotaExceeded if the owner has as many others as it may have."""
        outcome, *value = self._scripts.restore_collection(id=collection.id, limit=self._settings.max_collections)
        if outcome == "taken":
            raise Conflict(
                f"Collection {collection.name!r} cannot be restored, as there is another one of this name now. Delete that one first.",
                code="name_taken",
                param="collection",
                details={"name": collection.name, "collection": value[0]},
            )
        if outcome == "limit":
            raise QuotaExceeded("collections", int(value[0]))
        if outcome == "gone":
            raise NotFound(
                f"Collection {collection.name!r} cannot be restored. A deleted collection can be for {RESTORE_SECONDS} s.",
                param="collection",
            )

    def due_collections(self, limit: int, *, again_seconds: float) -> list[tuple[str, str]]:
        """Hidden collections whose data has to be deleted now, each with its owner. Each is returned again after ``again_seconds``,
        unless it is dropped by then."""
        rows = self._scripts.due_collections(limit=limit, again_ms=int(1000 * again_seconds))
        return [(str(collection), str(owner)) for collection, owner in rows]

    # Documents: methods for the API

    def register(
        self,
        collection: Collection,
        *,
        document_id: str,
        name: str,
        size: int,
        sha256: str,
        media_type: str,
        job_id: str,
        metadata: Mapping[str, Scalar] | None = None,
        replace: bool = True,
        folder: str = "",
        file_id: str = "",
        url: str = "",
        etag: str = "",
        last_modified: str = "",
    ) -> tuple[Document, bool]:
        """Register an uploaded file; return its document, and True if it is new.

        If the collection already contains the same bytes, or they are being processed, returns that earlier document and False;
        the caller then discards its own copy. ``job_id`` is the job that the caller submits next. If the caller dies before it
        submits the job, the next upload of these bytes gets a document whose job does not exist, and submits that job. Different
        bytes with the name of an earlier document become its next version, if ``replace``; ``replaces`` names that document. The
        description is written first, into the document's folder or the one called ``folder``. With ``file_id``, the document of this file of
        ``/v1/files`` is meant instead, and other documents may have the same bytes. ``url`` is where the server fetched it, with what the
        other server said about this version. Raises NotFound if the collection was deleted, NameTaken and QuotaExceeded.
        """
        record: dict[str, str | int] = {
            "owner": collection.owner,
            "collection_id": collection.id,
            "collection": collection.name,
            "size": size,
            "media_type": media_type,
            "job_id": job_id,
            "metadata": json.dumps(dict(metadata or {}), ensure_ascii=False),
            **({"url": url, "etag": etag, "last_modified": last_modified} if url else {}),
        }
        description = Description.of_upload(
            collection,
            name=name,
            size=size,
            sha256=sha256,
            media_type=media_type,
            created_at=time.time_ns() // 1_000_000,
            metadata=metadata or {},
            file_id=file_id,
            url=url,
        )
        write_description(self._files, folder or document_id, description)
        outcome, *values = self._scripts.register(
            id=document_id,
            collection=collection.id,
            sha256=sha256,
            name=name,
            file=file_id,
            replace=int(replace),
            document_limit=self._settings.max_documents,
            byte_limit=self._settings.max_stored_bytes,
            record=record,
        )
        if outcome == "gone":
            raise NotFound(f"Collection {collection.name!r} has been deleted.", param="collection")
        if outcome == "name_taken":
            raise NameTaken(name, str(values[0]))
        if outcome != "registered":
            raise QuotaExceeded(outcome, int(values[0]))
        registered_id = values[0]
        document = self.get(collection.owner, registered_id)
        if registered_id == document_id and document.version > 1:
            write_description(self._files, folder or document_id, replace_fields(description, version=document.version))
        return document, registered_id == document_id

    def recover_collection(self, description: Description, state: IndexState | None) -> str:
        """Make a collection's record again from what its documents say, unless it exists; return its name."""
        fields: dict[str, str | int] = {
            "embedding_model": (state or description).embedding_model,
            "index": state.index if state else description.collection_id,
            "embedding_revision": state.embedding_revision if state else "",
            "title": description.title,
            "ocr_languages": ",".join(description.ocr_languages),
            **_fields(
                {
                    "chunk_tokens": (state or description).chunk_tokens,
                    "chunk_overlap_tokens": (state or description).chunk_overlap_tokens,
                }
            ),
        }
        name = self._scripts.recover_collection(
            id=description.collection_id,
            owner=description.owner,
            name=description.collection,
            created_at=description.collection_created_at,
            fields=fields,
        )
        return str(name)

    def adopt_index(self, collection_id: str, state: IndexState) -> None:
        """Search a collection in the index ``state.index``, which a reindex built after the collection's record was saved."""
        changes = {
            "index": state.index,
            "next_index": "",
            "reindex_job": "",
            "embedding_model": state.embedding_model,
            "embedding_revision": state.embedding_revision,
            **_fields({"chunk_tokens": state.chunk_tokens, "chunk_overlap_tokens": state.chunk_overlap_tokens}),
        }
        self._scripts.update_if_exists(record=f"collection:{collection_id}", changes=changes)
        # The index of the older record may have been found missing in the meantime.
        self.clear_index_problem(collection_id)

    def recover_document(self, document_id: str, description: Description, *, collection: str, job_id: str) -> tuple[str, str]:
        """Make a document's record again, as ``uploaded`` by the job ``job_id``. ``collection`` is the name of its collection.

        Returns ``recovered``, ``exists``, ``gone`` (there is no such collection) or ``duplicate`` and the id of a document with the
        same bytes.
        """
        record: dict[str, str | int] = {
            "owner": description.owner,
            "collection_id": description.collection_id,
            "collection": collection,
            "size": description.size,
            "media_type": description.media_type,
            "job_id": job_id,
            "created_at": description.created_at,
            "metadata": json.dumps(dict(description.metadata), ensure_ascii=False),
            **({"url": description.url} if description.url else {}),
        }
        outcome, other = self._scripts.recover_document(
            id=document_id,
            collection=description.collection_id,
            sha256=description.sha256,
            name=description.name,
            file=description.file_id,
            version=description.version,
            record=record,
        )
        return str(outcome), str(other)

    def get(self, owner: str, document_id: str, *, hidden: bool = False) -> Document:
        """The owner's document with this id. One that is hidden until it is deleted, itself or with its collection, is found only if
        ``hidden``. Raises NotFound."""
        fields = self._redis.hgetall(keys.document(document_id)) if is_id(DOCUMENT, document_id) else {}
        if not fields or fields["owner"] != owner or (not hidden and self._is_hidden(fields)):
            raise NotFound(f"Document {document_id[:80]!r} does not exist.", param="document")
        self._rights.require_collection(fields["collection"], "document")
        return Document.from_hash(fields)

    def _is_hidden(self, document: Mapping[str, str]) -> bool:
        """Whether a document is hidden until it is deleted, itself or with its collection."""
        return "delete_at" in document or bool(self._redis.hexists(keys.collection(document["collection_id"]), "delete_at"))

    def find(self, document_id: str) -> Document | None:
        """The document with this id, whoever owns it."""
        fields = self._redis.hgetall(keys.document(document_id))
        return Document.from_hash(fields) if fields else None

    def has_ready_document(self, collection_id: str) -> bool:
        """Whether a collection has a document that can be searched."""
        batch: list[str] = []
        for document_id in self.document_ids(collection_id):
            batch.append(document_id)
            if len(batch) == 100:
                if self.ready_names(batch):
                    return True
                batch = []
        return bool(self.ready_names(batch))

    def list_documents(
        self,
        collection_id: str,
        *,
        limit: int,
        after: str | None = None,
        ascending: bool = False,
        matches: Callable[[Document], bool] = lambda document: True,
    ) -> tuple[list[Document], str | None]:
        """A page of a collection's matching documents, newest first unless ``ascending``, after the id ``after``, without those that are
        hidden; and where the next page starts, or None."""
        return list_page(
            self._redis,
            keys.listing(collection_id),
            self.read_documents,
            limit=limit,
            after=after,
            matches=matches,
            ascending=ascending,
        )

    def list_with_status(
        self, collection: Collection, statuses: Sequence[Status], *, limit: int, after: str | None = None
    ) -> tuple[list[Document], str | None]:
        """A page of a collection's documents with one of these statuses, newest first; and where the next page starts, or None."""
        self._index_statuses(collection)
        found: list[Document] = []
        more = False
        for status in statuses:
            part, following = list_page(
                self._redis,
                keys.with_status(collection.id, status),
                self.read_documents,
                limit=limit,
                after=after,
                # It may have got another status since the list was read.
                matches=lambda document, status=status: document.status == status,  # type: ignore[misc]
            )
            found, more = found + part, more or following is not None
        page = sorted(found, key=lambda document: document.id, reverse=True)[:limit]
        return page, page[-1].id if page and (more or len(found) > limit) else None

    def count_by_status(self, collection: Collection) -> dict[Status, int]:
        """How many documents of a collection have each status, without those that are hidden. It reads no document."""
        self._index_statuses(collection)
        with self._redis.pipeline(transaction=True) as pipeline:
            for status in STATUSES:
                pipeline.zcard(keys.with_status(collection.id, status))
            return {status: int(number) for status, number in zip(STATUSES, pipeline.execute(), strict=True) if number}

    def miscounted_documents(self, collection: Collection) -> list[str]:
        """The documents that are not, or not only, listed with their own status, sorted by id. A process of an older version changes
        statuses without these lists."""
        if not collection.statuses_indexed:  # the next count lists them
            return []
        listed = set(self.document_ids(collection.id))
        for status in STATUSES:
            listed.update(self._redis.zrange(keys.with_status(collection.id, status), 0, -1))
        found, ids = [], sorted(listed)
        for start in range(0, len(ids), STATUS_BATCH):
            batch = ids[start : start + STATUS_BATCH]
            with self._redis.pipeline(transaction=True) as pipeline:
                for document_id in batch:
                    pipeline.hmget(keys.document(document_id), "status", "collection_id", "delete_at")
                    for status in STATUSES:
                        pipeline.zscore(keys.with_status(collection.id, status), document_id)
                replies = iter(pipeline.execute())
            for document_id in batch:
                status, home, hidden = next(replies)
                expected = {status} if status and home == collection.id and not hidden else set()
                if {each for each in STATUSES if next(replies) is not None} != expected:
                    found.append(document_id)
        return found

    def recount(self, collection: Collection) -> None:
        """List a collection's documents by their statuses again. Counts are too low until it returns."""
        index = partial(self._scripts.index_statuses, collection=collection.id, batch=STATUS_BATCH, statuses=STATUSES)
        last = ""
        while last := str(index(after=last)):
            pass
        self._scripts.update_if_exists(record=f"collection:{collection.id}", changes={"statuses_indexed": 1})

    def _index_statuses(self, collection: Collection) -> None:
        """List a collection's documents by their statuses, unless they are."""
        if not collection.statuses_indexed:
            self.recount(collection)

    def rename(self, document: Document, name: str) -> Document:
        """Give a document another name in its collection and return it. It can be repeated.

        Raises InvalidValue for a name that is too long, NameTaken if another document has it, Conflict while the document is being
        read, and NotFound if it was deleted meanwhile.
        """
        outcome, *other = self._scripts.rename_document(id=document.id, name=check_document_name(name, "name"))
        if outcome == "taken":
            raise NameTaken(name, str(other[0]))
        if outcome == "in_progress":
            raise in_progress_error(document.id)
        if outcome == "gone":
            raise NotFound(f"Document {document.id!r} does not exist.", param="document")
        renamed = self.get(document.owner, document.id)
        description = read_description(self._files, document.id)
        if description is not None:
            write_description(self._files, document.id, replace_fields(description, name=renamed.name, version=renamed.version))
        return renamed

    def move(self, document_id: str, job_id: str, attempt: int, *, source: str, target: str) -> MoveResult:
        """Put a document into another collection, for the attempt that indexes it there. ``source`` and ``target`` are the ids of the
        collections. Returns what happened, and the id of the document that is in the way, or ""."""
        outcome, *other = self._scripts.move_document(id=document_id, source=source, target=target, job=job_id, attempt=attempt)
        return str(outcome), str(other[0]) if other else ""

    def find_current(self, collection_id: str, name: str) -> Document | None:
        """The document that searches find under this name, or None."""
        document_id = self._redis.hget(keys.current(collection_id), name)
        found = self.read_documents([document_id]) if document_id else []
        return found[0] if found and found[0].status == "ready" else None

    def note_validators(self, document_id: str, etag: str, last_modified: str) -> None:
        """Note what the server that has a document's file said about its version."""
        changes = {"etag": etag, "last_modified": last_modified}
        self._scripts.update_if_exists(record=f"document:{document_id}", changes=changes)

    def set_metadata(self, document_id: str, metadata: Mapping[str, Scalar]) -> None:
        """Replace the metadata in a document's record."""
        text = json.dumps(dict(metadata), ensure_ascii=False)
        self._scripts.update_if_exists(record=f"document:{document_id}", changes={"metadata": text})

    def read_documents(self, ids: Sequence[str]) -> list[Document]:
        """The documents with these ids that exist, of any owner, in the order of the ids."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for document_id in ids:
                pipeline.hgetall(keys.document(document_id))
            return [Document.from_hash(fields) for fields in pipeline.execute() if fields and "delete_at" not in fields]

    def document_ids(self, collection_id: str, batch: int = 500) -> Iterator[str]:
        """The ids of all documents of a collection, those that are hidden included, even if it was dropped. Documents may be removed
        during the iteration."""
        last = "-"
        while ids := self._redis.zrange(keys.listing(collection_id), last, "+", bylex=True, offset=0, num=batch):
            yield from ids
            last = f"({ids[-1]}"

    def statuses(self, document_ids: Iterable[str]) -> dict[str, str]:
        """The statuses of those documents that exist, by id."""
        ids = list(document_ids)
        with self._redis.pipeline(transaction=False) as pipeline:
            for document_id in ids:
                pipeline.hget(keys.document(document_id), "status")
            return {document_id: status for document_id, status in zip(ids, pipeline.execute(), strict=True) if status}

    def ready_names(self, document_ids: Iterable[str], collection_id: str = "") -> dict[str, str]:
        """Names by id of the given documents that can be found, in one collection if it is named; others, and those that are hidden, are
        left out."""
        ids = list(dict.fromkeys(document_ids))
        with self._redis.pipeline(transaction=False) as pipeline:
            for document_id in ids:
                pipeline.hmget(keys.document(document_id), "status", "name", "delete_at", "collection_id")
            found = zip(ids, pipeline.execute(), strict=True)
        return {
            document_id: name
            for document_id, (status, name, hidden, home) in found
            if status == "ready" and not hidden and collection_id in ("", home)
        }

    def remove(self, document_id: str, collection_id: str) -> bool:
        """Delete the record, before the vectors and files. False if it was already gone."""
        return bool(self._scripts.remove(id=document_id, collection=collection_id))

    def delete_later(self, document: Document) -> int:
        """Hide a document, and delete it after ``RESTORE_SECONDS``; return the time in milliseconds until which it can be restored.

        Raises NotFound if it was deleted meanwhile.
        """
        delete_at = self._scripts.delete_later(id=document.id, collection=document.collection_id, keep_ms=RESTORE_SECONDS * 1000)
        if delete_at is None:
            raise NotFound(f"Document {document.id!r} does not exist.", param="document")
        return int(delete_at)

    def restore(self, document: Document) -> None:
        """Show a hidden document again. Raises NotFound if its time is over, and Conflict if another document has its name or bytes."""
        outcome, *other = self._scripts.restore(id=document.id, collection=document.collection_id)
        if outcome == "taken":
            raise Conflict(
                f"Document {document.id} cannot be restored, as document {other[0]} has its name or its bytes. Delete that one first.",
                code="name_taken",
                details={"name": document.name, "document": other[0]},
            )
        if outcome == "gone":
            raise NotFound(
                f"Document {document.id} cannot be restored. A deleted document can be for {RESTORE_SECONDS} s.", param="document"
            )

    def due_deletions(self, limit: int, *, again_seconds: float) -> list[tuple[str, str, str]]:
        """Hidden documents whose data has to be deleted now, each with its collection and owner. Each is returned again after
        ``again_seconds``, unless it is removed by then."""
        rows = self._scripts.due_deletions(limit=limit, again_ms=int(1000 * again_seconds))
        return [(str(document), str(collection), str(owner)) for document, collection, owner in rows]

    # Documents: methods for attempts that process them

    def set_stage(
        self,
        document_id: str,
        job_id: str,
        attempt: int,
        status: Status,
        *,
        pages: int | None = None,
        pages_done: int | None = None,
    ) -> DocumentUpdateResult:
        """Record the progress of a document."""
        changes: dict[str, str | int] = {"status": status, "reason": ""}
        if pages is not None:
            changes["pages"] = pages
        if pages_done is not None:
            changes["pages_done"] = pages_done
        return self._advance(document_id, job_id, attempt, changes)

    def finish(
        self,
        document_id: str,
        job_id: str,
        attempt: int,
        status: Status,
        *,
        reason: str = "",
        problems: Sequence[Problem] = (),
        pages: int | None = None,
        chunks: int | None = None,
        text_sha256: str = "",
    ) -> DocumentUpdateResult:
        """Record the final status of a document. When it becomes ``ready``, it can be searched, and the previous ready document
        with its name no longer can; ``replaces`` then names that document, and ``same_text_as`` another one with the same
        ``text_sha256``."""
        changes: dict[str, str | int] = {
            "status": status,
            "reason": reason,
            "problems": json.dumps([asdict(problem) for problem in problems], ensure_ascii=False),
        }
        if pages is not None:
            changes |= {"pages": pages, "pages_done": pages}
        if chunks is not None:
            changes["chunks"] = chunks
        if status != "ready":
            return self._advance(document_id, job_id, attempt, changes)
        if text_sha256:
            changes["text_sha256"] = text_sha256
        collection_id = self._redis.hget(keys.document(document_id), "collection_id") or ""
        result = self._scripts.make_ready(id=document_id, collection=collection_id, job=job_id, attempt=attempt, changes=changes)
        return cast(DocumentUpdateResult, result)

    def _advance(self, document_id: str, job_id: str, attempt: int, changes: Mapping[str, str | int]) -> DocumentUpdateResult:
        return cast(DocumentUpdateResult, self._scripts.advance(id=document_id, job=job_id, attempt=attempt, changes=changes))


def in_progress_error(document_id: str) -> Conflict:
    """The error for a change of a document that is being read."""
    return Conflict(
        f"Document {document_id} is being read. Wait until its job ends, or cancel it.",
        code="document_not_read",
        param="document",
    )


def _fields(options: Mapping[str, Setting]) -> dict[str, str | int]:
    """Hash fields; None is stored as an empty string."""
    return {name: "" if value is None else value for name, value in options.items()}
