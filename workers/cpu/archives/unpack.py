"""Handler of unpack jobs: each member of an archive becomes a document with an ingest job in the archive's batch.

Ids of documents and jobs are derived from the unpack job's id and the member's number. So a repeated attempt recognises the
members that an earlier one registered, and adds those that are missing.
"""

import json
import unicodedata
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from shared.disk_space import DiskSpace
from shared.documents.files import DocumentFiles
from shared.documents.media_types import ARCHIVES, ZIP, detect_media_type
from shared.documents.models import MAX_NAME_LENGTH, Collection, Document
from shared.documents.store import Documents
from shared.errors import BodyTooLarge, DocumentRejected, NameTaken, NotFound, QueueFull, QuotaExceeded, TooMany
from shared.ids import DOCUMENT, JOB, derived_id
from shared.jobs.queries import JobQueries
from shared.jobs.queue_names import CPU_QUEUE
from shared.jobs.submission import JobSubmitter, Submission
from shared.settings import Settings
from workers.cpu.archives.archive import ArchiveLimits, MemberBytes, MemberSkipped, unpack_members
from workers.cpu.sandbox.child_process import ChildProcesses
from workers.cpu.turn import Turn
from workers.runtime.attempt import AttemptHandle

MAX_LISTED = 1000
"""Members listed in the result: at most this many registered, duplicate and skipped ones. Further ones are only counted."""


@dataclass
class _Tally:
    """What became of the first ``done`` members."""

    done: int = 0
    registered: list[dict[str, str]] = field(default_factory=list)
    duplicates: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


def unpack(
    attempt: AttemptHandle, documents: Documents, submitter: JobSubmitter, queries: JobQueries, settings: Settings
) -> dict[str, Any]:
    """Unpack ``spec["archive_id"]`` into ``spec["collection_id"]``.

    The result has ``name`` and the numbers of members that became ``documents``, that are ``duplicates`` of documents in the
    collection, and that were ``skipped``. The first thousand of each are listed: ``members`` and ``duplicate_members`` with
    name and document id, ``skipped_members`` with name and reason. Raises DocumentRejected (``too_large``, ``encrypted``,
    ``failed`` or ``deleted``), QueueFull, and DiskFull if a member would use the reserve of the disk; documents registered by then stay.
    After a turn, the job returns to its queue if another owner waits, and the next attempt continues with the next member.
    """
    archives = DocumentFiles(settings.archives_dir)
    _remove_abandoned(settings.archives_dir, archives, queries)
    archive_id, name = attempt.spec["archive_id"], attempt.spec["name"]
    path = archives.path(archive_id, "original")
    if not path.exists():
        raise DocumentRejected("The archive file no longer exists. Upload it again.", code="failed")
    passwords = documents.passwords(archives, settings.max_queue_seconds)
    turn = Turn(attempt, settings.turn_seconds, queries.must_give_way)
    unpacker = _Unpacker(attempt, documents, submitter, settings, passwords.look_up(archive_id), turn)
    progress = archives.path(archive_id, "unpacked.json")
    if progress.exists():
        unpacker.tally = _Tally(**json.loads(progress.read_bytes()))
    archive_type = detect_media_type(path)
    children = ChildProcesses()
    attempt.on_stop(children.kill)
    try:
        if archive_type not in ARCHIVES:
            raise DocumentRejected("The file is no longer an archive.", code="failed")
        unpack_members(
            path, "zip" if archive_type == ZIP else "tar", _limits(settings), unpacker.password, unpacker.add_member, children
        )
    except DocumentRejected:
        attempt.raise_if_stopped()  # a stop kills the child, which then looks as if it had crashed
        _remove_archive(archives, archive_id, documents, settings)
        raise
    tally = unpacker.tally
    _remove_archive(archives, archive_id, documents, settings)
    return {
        "name": name,
        "documents": len(tally.registered),
        "members": tally.registered[:MAX_LISTED],
        "duplicates": len(tally.duplicates),
        "duplicate_members": tally.duplicates[:MAX_LISTED],
        "skipped": len(tally.skipped),
        "skipped_members": tally.skipped[:MAX_LISTED],
    }


class DistinctNames:
    """Names of the members of one archive. A name that an earlier member has gets a number.

    Otherwise the later member would replace the earlier one, as a new version of the same document. Names depend on the order of
    the members only, so each attempt gives them the same ones.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def take(self, name: str) -> str:
        """The name for the next member: composed, and not taken before."""
        name = unicodedata.normalize("NFC", name) or "unnamed"
        suffix, number, distinct = PurePosixPath(name).suffix, self._numbers.get(name, 0), name
        while distinct in self._numbers:
            number += 1
            distinct = f"{name.removesuffix(suffix)} ({number}){suffix}"
        self._numbers[name] = max(number, 1)
        self._numbers.setdefault(distinct, 1)
        return distinct


class _Unpacker:
    """One attempt to unpack one archive."""

    def __init__(
        self,
        attempt: AttemptHandle,
        documents: Documents,
        submitter: JobSubmitter,
        settings: Settings,
        password: str,
        turn: Turn,
    ) -> None:
        self._attempt = attempt
        self._documents = documents
        self._submitter = submitter
        self._settings = settings
        self._files = DocumentFiles(settings.documents_dir, DiskSpace(settings.data_dir, settings.min_free_bytes))
        self.password = password
        self._turn = turn
        self.tally = _Tally()
        self._names = DistinctNames()

    def add_member(self, number: int, name: str, source: MemberBytes) -> None:
        """Store and register one member, and submit its ingest job, unless an earlier attempt did."""
        self._attempt.raise_if_stopped()
        name = self._names.take(name)
        if number < self.tally.done:
            self._turn.restart()
            return
        self._add(number, name, source)
        self.tally.done = number + 1
        self._turn.give_way(self._save_progress)

    def _save_progress(self) -> None:
        archive_id = self._attempt.spec["archive_id"]
        with DocumentFiles(self._settings.archives_dir).replace(archive_id, "unpacked.json") as target:
            target.write(json.dumps(asdict(self.tally)).encode())

    def _add(self, number: int, name: str, source: MemberBytes) -> None:
        self._attempt.report_progress("unpacking", number, 0, "members")
        job = self._attempt.job
        if len(name) > MAX_NAME_LENGTH:
            reason = f"Its path has {len(name):,} characters, and {MAX_NAME_LENGTH:,} are allowed."
            self.tally.skipped.append({"name": f"…{name[-100:]}", "reason": reason})
            return
        document_id, job_id = (derived_id(prefix, job.id, str(number)) for prefix in (DOCUMENT, JOB))
        collection = self._collection()
        try:
            document = self._documents.get(job.owner, document_id, hidden=True)
        except NotFound:
            try:
                stored = self._files.store(document_id, source, limit=self._settings.max_upload_bytes)
            except (MemberSkipped, BodyTooLarge) as error:
                self.tally.skipped.append({"name": name, "reason": str(error)[:300]})
                return
            try:
                document, new = self._register(collection, document_id, job_id, name, stored.size, stored.sha256)
            except (NameTaken, QuotaExceeded) as error:
                self._files.remove(document_id)
                self.tally.skipped.append({"name": name, "reason": error.message})
                return
            if not new:
                self._files.remove(document_id)
                self.tally.duplicates.append({"name": name, "document_id": document.id})
                return
        self.tally.registered.append({"name": name, "document_id": document.id})
        self._submit_ingest(document.id, collection.id, document.job_id)

    def _register(
        self, collection: Collection, document_id: str, job_id: str, name: str, size: int, sha256: str
    ) -> tuple[Document, bool]:
        """The new document and True, or the document of the collection that has the same bytes and False."""
        try:
            document, new = self._documents.register(
                collection,
                document_id=document_id,
                name=name,
                size=size,
                sha256=sha256,
                media_type=detect_media_type(self._files.path(document_id, "original"), name),
                job_id=job_id,
                metadata=self._attempt.spec.get("metadata"),
                replace=self._attempt.spec.get("replace", True),
            )
        except NotFound:
            self._files.remove(document_id)
            raise _deleted() from None
        if new and self.password:
            self._documents.passwords(self._files, self._settings.max_queue_seconds).keep(document_id, self.password)
        return document, new

    def _collection(self) -> Collection:
        try:
            return self._documents.collection_by_id(self._attempt.spec["collection_id"], hidden=True)
        except NotFound:
            raise _deleted() from None

    def _submit_ingest(self, document_id: str, collection_id: str, job_id: str) -> None:
        job = self._attempt.job
        spec = {"document_id": document_id, "collection_id": collection_id}
        submission = Submission(
            kind="ingest",
            queue=CPU_QUEUE,
            spec=spec,
            owner=job.owner,
            id=job_id,
            document=document_id,
            parent=job.parent,
            concurrency_key=job.concurrency_key,
            concurrency_limit=job.concurrency_limit,
        )
        try:
            self._submitter.submit_job(submission)
        except TooMany as full:
            raise QueueFull(
                f"{full.message}; {len(self.tally.registered) - 1} members were submitted, and the others will follow."
            ) from None


def _limits(settings: Settings) -> ArchiveLimits:
    return ArchiveLimits(
        seconds=settings.parse_seconds,
        memory_bytes=settings.parse_memory_bytes,
        max_members=settings.max_archive_members,
        max_member_bytes=settings.max_upload_bytes,
        max_bytes=settings.max_archive_bytes,
        max_ratio=settings.max_archive_ratio,
    )


def _remove_archive(archives: DocumentFiles, archive_id: str, documents: Documents, settings: Settings) -> None:
    documents.passwords(archives, settings.max_queue_seconds).forget(archive_id)
    archives.remove(archive_id)


def _remove_abandoned(folder: Path, archives: DocumentFiles, queries: JobQueries) -> None:
    """Remove archives whose jobs ended without this handler, for example cancelled while queued."""
    for path in folder.iterdir() if folder.exists() else ():
        job = queries.get_job(path.name.replace(DOCUMENT, JOB, 1))
        if job is not None and job.status.final:
            archives.remove(path.name)


def _deleted() -> DocumentRejected:
    return DocumentRejected("The collection was deleted while the archive was being unpacked.", code="deleted")
