"""Files of vector stores over HTTP: files of ``/v1/files`` that become documents of a collection."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import request

from api.deletion import submit_deletion, wait_for_deletions
from api.openai.vector_stores import MAX_LISTED, ORDERS, chunk_settings, contents
from api.request_parsing import MAX_SHOWN, query_choice, query_integer
from api.services import owner, services
from api.submission import SHORT_JOB_SECONDS, require_disk_space
from api.uploads import UploadOptions, UploadService
from shared.documents.filters import Scalar
from shared.documents.media_types import ARCHIVES, detect_media_type
from shared.documents.models import ENDED, UNREADABLE, Collection, Document, check_document_name
from shared.errors import Conflict, InvalidValue, NameTaken, NotFound
from shared.ids import DOCUMENT, JOB, new_id
from shared.openai.files import StoredFile
from shared.openai.requests.vector_stores import BatchFile, ChunkingStrategy
from shared.openai.vector_stores import (
    FILE_STATUSES,
    document_of_file,
    file_json,
    file_of_document,
    file_status,
    name_suffix,
    store_id,
)


def describe_file(document: Document, collection: Collection) -> dict[str, Any]:
    settings = services().settings
    return file_json(document, collection, chunk_tokens=settings.chunk_tokens, chunk_overlap_tokens=settings.chunk_overlap_tokens)


def find_document(collection: Collection, file_id: str, param: str = "file_id") -> Document:
    """The document that a file of a vector store is. Raises NotFound."""
    found = contents().documents_of_files(collection.id, [file_id])
    own = document_of_file(file_id)
    if not found and own is not None:
        found = [each for each in services().documents.read_documents([own]) if not each.file_id]
    if not found or found[0].collection_id != collection.id or found[0].status == "replaced":
        raise NotFound(
            f"{param}: No file found with id '{file_id[:80]}' in vector store '{store_id(collection.id)}'.",
            code="file_not_found",
            param=param,
        )
    return found[0]


def add_files(
    collection: Collection,
    entries: Sequence[BatchFile],
    strategies: Sequence[tuple[str, ChunkingStrategy | None]],
    *,
    param: str,
    concurrency: Mapping[str, Any],
) -> str:
    """Make files documents of a collection, as jobs of one batch; return the id of its job. ``param`` is the field that names the files,
    ``concurrency`` the concurrency key of the jobs.

    If one of the files does not exist, none is added. Raises NotFound, InvalidValue, QuotaExceeded and DiskFull.
    """
    files = [(entry, _find_file(entry.file_id, f"{param}[{number}]")) for number, entry in enumerate(entries)]
    require_disk_space()
    set_chunking_strategy(collection, strategies)
    submitter = services().submitter
    ids = [file.id for _, file in files]
    target = {"collection_id": collection.id, "files": ids}
    batch = submitter.open_batch(owner(), spec={"collection": collection.name}, vector_store=target).id
    try:
        for number, (entry, file) in enumerate(files):
            add_file(collection, file, entry.attributes or {}, param=f"{param}[{number}]", batch=batch, concurrency=concurrency)
    finally:
        # Also after a refusal: it would stay open, and count against the owner's limit, for an hour.
        submitter.seal_batch(batch)
    return batch


def add_single_file(collection: Collection, entry: BatchFile, concurrency: Mapping[str, Any]) -> Document:
    """Make a file a document of a collection. Raises what ``add_files`` raises."""
    file = _find_file(entry.file_id, "file_id")
    require_disk_space()
    set_chunking_strategy(collection, [("chunking_strategy", entry.chunking_strategy)])
    return add_file(collection, file, entry.attributes or {}, param="file_id", concurrency=concurrency)


def add_file(
    collection: Collection,
    file: StoredFile,
    attributes: Mapping[str, Scalar],
    *,
    param: str,
    batch: str = "",
    concurrency: Mapping[str, Any],
) -> Document:
    """Make a file a document, and ingest it. One that is in the collection already, and could be read, stays as it is."""
    documents, document_id = services().documents, new_id(DOCUMENT)
    check_document_name(file.filename)
    earlier = contents().documents_of_files(collection.id, [file.id])
    try:
        document = _register(collection, file, attributes, document_id, param)
        job = services().queries.get_job(document.job_id)
        # Either the document is new, or the server died between registering it and submitting its job.
        needs_job = job is None and document.status == "uploaded"
        if needs_job:
            services().files.move_if_absent(document_id, document.id)
    except BaseException:
        services().files.remove(document_id)
        raise
    if needs_job:
        options = UploadOptions(webhook=None, metadata=attributes, **concurrency)
        UploadService(services(), owner()).submit_ingest(document, batch, options=options)
    elif document.id != document_id:
        services().files.remove(document_id)
    for replaced in earlier:
        if replaced.id != document.id and replaced.status in UNREADABLE:
            submit_deletion({"document_id": replaced.id, "collection_id": collection.id})
    documents.note_use(collection.id)
    return document


def set_chunking_strategy(collection: Collection, strategies: Sequence[tuple[str, ChunkingStrategy | None]]) -> None:
    """Let the first files of a vector store decide how it is chunked. Raises InvalidValue if it has files that are chunked otherwise."""
    for param, strategy in strategies:
        wanted = chunk_settings(strategy)
        if wanted == (None, None):
            continue
        settings = services().settings
        overlap = collection.chunk_overlap_tokens
        current = (
            collection.chunk_tokens or settings.chunk_tokens,
            settings.chunk_overlap_tokens if overlap is None else overlap,
        )
        if wanted == current:
            continue
        if services().documents.count_documents(collection.id):
            raise InvalidValue(
                f"{param}: all files of a vector store are chunked alike, this one with max_chunk_size_tokens {current[0]} and "
                f"chunk_overlap_tokens {current[1]}. Leave it out, or create another vector store",
                param=param,
            )
        collection = services().documents.configure(collection.id, chunk_tokens=wanted[0], chunk_overlap_tokens=wanted[1])


def set_attributes(document: Document, collection: Collection, attributes: Mapping[str, Scalar]) -> Document:
    """Replace the attributes of a file, in its record and in the indexes. Raises IndexUnavailable, after which it can be repeated."""
    services().documents.set_metadata(document.id, attributes)
    for index in filter(None, (collection.index, collection.next_index)):
        services().text_index.set_metadata(index, document.id, attributes)
    return services().documents.get(owner(), document.id)


def remove_document(document: Document) -> None:
    """Delete a document, and wait until searches no longer find it."""
    if document.status not in ENDED:
        services().transitions.cancel(document.job_id, owner())
    job = submit_deletion({"document_id": document.id, "collection_id": document.collection_id})
    wait_for_deletions([job], SHORT_JOB_SECONDS)


def remove_from_stores(file_id: str) -> None:
    """Remove a file of ``/v1/files`` from all vector stores of the owner, as OpenAI does when the file is deleted."""
    for _, document_id in contents().collections_with_file(owner(), file_id):
        for document in services().documents.read_documents([document_id]):
            remove_document(document)


def list_store_files(collection: Collection) -> tuple[list[Document], bool]:
    """The page of a collection's documents that the query asks for, and whether more follow. Raises InvalidValue."""
    limit, status = query_integer("limit", 20, 1, MAX_LISTED), query_choice("filter", FILE_STATUSES)
    ascending = query_choice("order", ORDERS) == "asc"
    cursors = {name: _cursor(collection, name) for name in ("after", "before")}
    if cursors["before"] is not None and cursors["after"] is not None:
        raise InvalidValue("before: cannot be combined with after", param="before")
    backwards = cursors["before"] is not None
    found, following = services().documents.list_documents(
        collection.id,
        limit=limit,
        after=cursors["before"] or cursors["after"],
        ascending=ascending != backwards,
        matches=lambda document: (
            document.status != "replaced" and status in (None, file_status(document.status, document.reason))
        ),
    )
    return (found[::-1] if backwards else found), following is not None


def document_file_id(document: Document) -> str:
    return file_of_document(document.id, document.name, document.file_id)[0]


def _cursor(collection: Collection, param: str) -> str | None:
    id = request.args.get(param)
    if id is None:
        return None
    try:
        return find_document(collection, id, param).id
    except NotFound:
        # It may have been deleted since the page before. Its own id says where it was, if it has one.
        own = document_of_file(id)
        if own is None:
            raise InvalidValue(f"{param}: must be the id of a file, not {id[:MAX_SHOWN]!r}", param=param) from None
        return own


def _find_file(file_id: str, param: str) -> StoredFile:
    try:
        file = services().file_store.get(file_id, owner())
    except NotFound as error:
        raise NotFound(f"{param}: {error.message}", code=error.code, param=param) from None
    check_document_name(file.filename)
    return file


def _register(
    collection: Collection, file: StoredFile, attributes: Mapping[str, Scalar], document_id: str, param: str
) -> Document:
    """The document of a file: a new one, whose bytes are stored under ``document_id``, or the one that there is."""
    files = services().files
    try:
        stored = files.link(document_id, services().file_store.path(file))
        media_type = detect_media_type(files.path(document_id, "original"), file.filename)
        if media_type in ARCHIVES:
            raise InvalidValue(f"{param}: file {file.id} is an archive; put its files into the vector store", param=param)
        for name in (file.filename, file.filename + name_suffix(file.id)):
            try:
                document, _ = services().documents.register(
                    collection,
                    document_id=document_id,
                    name=name,
                    size=stored.size,
                    sha256=stored.sha256,
                    media_type=media_type,
                    job_id=new_id(JOB),
                    metadata=attributes,
                    replace=False,
                    file_id=file.id,
                )
                return document
            except NameTaken:
                continue
    except NotFound as error:
        raise NotFound(f"{param}: {error.message}", code=error.code, param=param) from None
    raise Conflict(f"{param}: file {file.id} is being added by another request; try again", param=param)
