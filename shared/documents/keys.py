"""The Redis keys of collections and documents.

None of them but passwords and the last has a time to live: a document stays until somebody deletes it. Every key is owned by a
collection or a document and goes with it.

    eh:collections:<owner>           hash  collection name -> collection id
    eh:collection:<id>               hash  the fields of ``record.Collection``
    eh:collection:<id>:documents     zset  document ids, all with score 0, so that their order is the order of the ids
    eh:collection:<id>:sha256        hash  SHA-256 of the bytes -> id of the document that holds them
    eh:collection:<id>:latest        hash  name -> id of the document that was last entered under it
    eh:collection:<id>:current       hash  name -> id of the document that is ready under it
    eh:document:<id>:password        string  see ``passwords``; has a time to live
    eh:document:<id>                 hash  the fields of ``record.Document`` and ``attempt``, the fence of its job
    eh:index:silent                  string  there for a while after the index left a request unanswered (``index_trouble``)

A document that is still under way when its job ends is failed by that end itself (``shared/jobs/lua/prelude.lua``).
"""

from shared.redis_connection import PREFIX


def names(owner: str) -> str:
    return f"{PREFIX}collections:{owner}"


def collection(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}"


def listing(collection_id: str) -> str:
    return f"{PREFIX}collection:{collection_id}:documents"


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
