"""Redis keys of collections and documents.

Only the password key and the last one have a time to live; documents are kept until a client deletes them. Every other key except
``eh:data`` belongs to a collection or a document and is deleted with it.

    eh:collections:<owner>           hash  collection name -> collection id
    eh:collection:<id>               hash  the fields of ``models.Collection``; ``delete_at`` is the time until which it can be restored
    eh:collection:deleted            zset  ids of all hidden collections, by the time in milliseconds until which they can be restored
    eh:collection:deleted:<owner>    hash  name -> id of the last hidden collection with this name
    eh:collection:<id>:documents     zset  document ids, all with score 0, so that they sort by id
    eh:collection:<id>:status:<s>    zset  ids of the documents with the status <s>, all with score 0, without those that are hidden
    eh:collection:<id>:deleted       set   ids of those documents that are hidden until they are deleted or restored
    eh:collection:<id>:files         hash  file of /v1/files -> id of the document made from it
    eh:collection:<id>:sha256        hash  SHA-256 of the bytes -> id of the document with these bytes
    eh:collection:<id>:texts         hash  SHA-256 of the words -> id of the first ready document with this text
    eh:collection:<id>:latest        hash  name -> id of the newest document with this name
    eh:collection:<id>:current       hash  name -> id of the ready document with this name
    eh:document:<id>:password        string  see ``passwords``; has a time to live
    eh:document:<id>                 hash  the fields of ``models.Document``; ``attempt``, the fencing token of its job; and ``delete_at``, the
                                           time until which it can be restored, if it is hidden
    eh:document:deleted              zset  ids of all hidden documents, by the time in milliseconds until which they can be restored
    eh:owner:<owner>:stored          hash  documents, files, bytes: what the owner has stored, for its limits
    eh:data                          hash  id, version, changes: of which data folder the records are (see ``data_state``)
    eh:index:problems                hash  collection id -> why its index has to be rebuilt (see ``index_health``)
    eh:index:purging                 string  set while an io worker looks for indexes to purge, and for a while after (see ``word_purger``)
    eh:index:silent                  string  set for a while after the index did not answer a request (see ``index_health``)

When a job ends, the transition also fails a document that is still being processed (``shared/jobs/lua/lib/document.lua``).
"""

from shared.redis_connection import PREFIX


def names(owner: str) -> str:
    return f"{PREFIX}collections:{owner}"


def deleted_collections(owner: str = "") -> str:
    """All hidden collections, or those of an owner by name."""
    return f"{PREFIX}collection:deleted:{owner}" if owner else f"{PREFIX}collection:deleted"


def collection(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}"


def listing(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}:documents"


def with_status(collection_id: str, status: str) -> str:
    return f"{PREFIX}collection:{collection_id}:status:{status}"


def deleted(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}:deleted"


def files(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}:files"


def digests(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}:sha256"


def latest(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}:latest"


def current(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}:current"


def password(document_id: str) -> str:
    return f"{PREFIX}document:{document_id}:password"


def document(document_id: str) -> str:
    return f"{PREFIX}document:{document_id}"
