"""Collection and document records, and the statuses of documents.

``store`` reads and writes them as Redis hashes.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Self

from shared.documents.filters import Scalar
from shared.errors import InvalidValue

Status = Literal[
    "uploaded", "parsing", "chunking", "embedding", "indexing",
    "ready", "empty", "needs_ocr", "encrypted", "unsupported", "too_large", "failed", "replaced",
]  # fmt: skip

IN_PROGRESS: tuple[Status, ...] = ("uploaded", "parsing", "chunking", "embedding", "indexing")
"""The document's job has not ended. Another upload of the same bytes returns this document."""

ENDED: tuple[Status, ...] = ("ready", "empty", "needs_ocr", "encrypted", "unsupported", "too_large", "failed", "replaced")
"""Only ``ready`` documents can be searched. The others have a reason, and their bytes may be uploaded again. A document is
``replaced`` from the moment a newer document with its name becomes ready until it is removed."""

STATUSES: tuple[Status, ...] = (*IN_PROGRESS, *ENDED)

UNREADABLE: tuple[Status, ...] = ("empty", "needs_ocr", "encrypted", "unsupported", "too_large", "failed")
"""The file could not be read. It is deleted after a time, or at once if its format is unknown."""

CANCELLED_REASON = "Its job is cancelled."
"""The reason of a document whose job was cancelled, as ``shared/jobs/lua/lib/transition.lua`` writes it."""

MAX_NAME_LENGTH = 4096
"""Characters of a document's name. Linux allows no longer path."""

COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_collection_name(name: str) -> str:
    """Return the name unchanged. Raises InvalidValue if it is not a valid collection name."""
    if COLLECTION_NAME.fullmatch(name) is None:
        raise InvalidValue(
            f"{name[:80]!r} is not a valid collection name. Use 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit.",
            param="collection",
        )
    return name


def check_document_name(name: str, param: str = "file") -> str:
    """Return the name unchanged. Raises InvalidValue if it is too long: a name that was cut could be that of another document."""
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidValue(
            f"{param}: the name of a file has at most {MAX_NAME_LENGTH:,} characters, and not {len(name):,}: {name[:40]!r}…{name[-40:]!r}",
            param=param,
        )
    return name


def escape_name(name: str) -> str:
    """The name of a file, with each byte that is not UTF-8 as ``\\xe9``. In ``name``, such bytes are surrogates, as Python reads them."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a character that a program has split
        return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A set of documents of one owner that are searched together. ``created_at`` is in Unix milliseconds.

    ``index`` is the index that serves searches; ``next_index`` is the one that ``reindex_job`` is building. ``embedding_revision``
    is empty until the first vectors are stored. Settings that are None or empty default to the server's settings.

    ``title``, ``description``, ``metadata`` and ``expires_days`` are those of the vector store that the collection is in ``/v1``. It expires
    that many days after ``last_active_at``, its last use.

    ``statuses_indexed``: its documents are listed by their statuses, as they are in every collection made since there are such lists.

    A collection with ``delete_at`` is hidden, and can be restored until then, in Unix milliseconds.
    """

    id: str
    owner: str
    name: str
    embedding_model: str
    created_at: int
    embedding_revision: str = ""
    chunk_tokens: int | None = None
    chunk_overlap_tokens: int | None = None
    ocr_languages: Sequence[str] = ()
    index: str = ""
    next_index: str = ""
    reindex_job: str = ""
    title: str = ""
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_days: int | None = None
    last_active_at: int | None = None
    delete_at: int | None = None
    statuses_indexed: bool = False

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Self:
        return cls(
            id=fields["id"],
            owner=fields["owner"],
            name=fields["name"],
            embedding_model=fields["embedding_model"],
            created_at=int(fields["created_at"]),
            embedding_revision=fields.get("embedding_revision", ""),
            chunk_tokens=_number(fields.get("chunk_tokens")),
            chunk_overlap_tokens=_number(fields.get("chunk_overlap_tokens")),
            ocr_languages=fields["ocr_languages"].split(",") if fields.get("ocr_languages") else (),
            index=fields.get("index") or fields["id"],
            next_index=fields.get("next_index", ""),
            reindex_job=fields.get("reindex_job", ""),
            title=fields.get("title", ""),
            description=fields.get("description", ""),
            metadata=json.loads(fields.get("metadata") or "{}"),
            expires_days=_number(fields.get("expires_days")),
            last_active_at=_number(fields.get("last_active_at")),
            delete_at=_number(fields.get("delete_at")),
            statuses_indexed="statuses_indexed" in fields,
        )

    @property
    def expires_at(self) -> int | None:
        """When it expires, in Unix milliseconds; None if it stays until it is deleted."""
        if self.expires_days is None:
            return None
        return (self.last_active_at or self.created_at) + self.expires_days * 24 * 3600 * 1000

    def as_json(self) -> dict[str, object]:
        """The JSON for clients. Times are Unix seconds with milliseconds."""
        return {
            "id": self.id,
            "object": "collection",
            "name": self.name,
            "embedding_model": self.embedding_model,
            "embedding_revision": self.embedding_revision or None,
            "chunk_tokens": self.chunk_tokens,
            "chunk_overlap_tokens": self.chunk_overlap_tokens,
            "ocr_languages": list(self.ocr_languages) or None,
            "reindex_job": self.reindex_job or None,
            "created_at": self.created_at / 1000,
        }


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem with some pages of a document: the pages, such as ``1-3, 7``, and a sentence."""

    pages: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One uploaded file. Sizes are in bytes, times in Unix milliseconds.

    ``name`` is the client's file name, which is never used as a path. ``file_id`` is the file of ``/v1/files`` that it is made from, or "". ``version`` counts the documents with this name in the
    collection, from 1. ``replaces`` is the id of the ready document that this one replaced, or replaces once it is ready, or "". ``url`` is
    where the server fetched it, or ""; ``etag`` and ``last_modified`` are what the other server said about this version. ``same_text_as``
    is the id of a document that had the same words when this one became ready, or "". ``moved_from`` is the id of the collection that it was
    in before, whose index may still have chunks of it, or "". ``before_move`` is what it returns to if its move ends before it is indexed.
    """

    id: str
    owner: str
    collection_id: str
    collection: str
    name: str
    size: int
    sha256: str
    media_type: str
    status: str
    reason: str
    pages: int
    pages_done: int
    chunks: int
    job_id: str
    created_at: int
    updated_at: int
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    version: int = 1
    replaces: str = ""
    file_id: str = ""
    url: str = ""
    etag: str = ""
    last_modified: str = ""
    same_text_as: str = ""
    moved_from: str = ""
    before_move: Mapping[str, str] = field(default_factory=dict)
    problems: Sequence[Problem] = ()

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Self:
        return cls(
            id=fields["id"],
            owner=fields["owner"],
            collection_id=fields["collection_id"],
            collection=fields["collection"],
            name=fields["name"],
            size=int(fields["size"]),
            sha256=fields["sha256"],
            media_type=fields["media_type"],
            status=fields["status"],
            reason=fields["reason"],
            pages=int(fields["pages"]),
            pages_done=int(fields["pages_done"]),
            chunks=int(fields["chunks"]),
            job_id=fields["job_id"],
            created_at=int(fields["created_at"]),
            updated_at=int(fields["updated_at"]),
            metadata=json.loads(fields.get("metadata") or "{}"),
            version=int(fields.get("version", 1)),
            replaces=fields.get("replaces", ""),
            file_id=fields.get("file_id", ""),
            url=fields.get("url", ""),
            etag=fields.get("etag", ""),
            last_modified=fields.get("last_modified", ""),
            same_text_as=fields.get("same_text_as", ""),
            moved_from=fields.get("moved_from", ""),
            before_move=json.loads(fields.get("before_move") or "{}"),
            problems=[Problem(**problem) for problem in json.loads(fields.get("problems") or "[]")],
        )

    def as_json(self) -> dict[str, object]:
        """The JSON for clients. Times are Unix seconds with milliseconds."""
        return {
            "id": self.id,
            "object": "document",
            "collection": self.collection,
            "name": self.name,
            "version": self.version,
            "replaces": self.replaces if self.replaces and self.status not in UNREADABLE else None,
            "size": self.size,
            "sha256": self.sha256,
            "same_text_as": self.same_text_as or None,
            "url": self.url or None,
            "media_type": self.media_type,
            "status": self.status,
            "reason": self.reason or None,
            "pages": self.pages,
            "pages_done": self.pages_done,
            "chunks": self.chunks,
            "problems": [asdict(problem) for problem in self.problems],
            "job_id": self.job_id,
            "created_at": self.created_at / 1000,
            "updated_at": self.updated_at / 1000,
            "metadata": dict(self.metadata),
        }


def _number(text: str | None) -> int | None:
    return int(text) if text else None
