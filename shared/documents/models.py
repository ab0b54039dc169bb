"""What is known of a collection and of a document, and the words for how far a document has come.

Knows nothing of Redis: ``store`` turns these into hashes and back.
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

UNDER_WAY: tuple[Status, ...] = ("uploaded", "parsing", "chunking", "embedding", "indexing")
"""The document's job has yet to end; the same bytes sent again are answered with this document."""

ENDED: tuple[Status, ...] = ("ready", "empty", "needs_ocr", "encrypted", "unsupported", "too_large", "failed", "replaced")
"""Only ``ready`` can be searched; each of the others carries a reason, and its bytes may be uploaded anew. ``replaced`` is what
a document is between the moment in which a newer one of its name becomes ready and its removal."""

COLLECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_collection_name(name: str) -> str:
    """The name as it came. Raises InvalidValue when it cannot name a collection."""
    if COLLECTION_NAME.fullmatch(name) is None:
        raise InvalidValue(
            f"{name[:80]!r} cannot name a collection: use 1 to 63 of A-Z a-z 0-9 . _ - and begin with a letter or digit.",
            param="collection",
        )
    return name


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Documents that are searched together, of one owner. ``created_at`` is in Unix milliseconds.

    ``index`` names the index that answers, ``next_index`` the one that ``reindex_job`` is making. ``embedding_revision`` is
    empty until the first vectors are made; settings that are None are those of the server.
    """

    id: str
    owner: str
    name: str
    embedding_model: str
    created_at: int
    embedding_revision: str = ""
    chunk_tokens: int | None = None
    chunk_overlap_tokens: int | None = None
    index: str = ""
    next_index: str = ""
    reindex_job: str = ""

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
            index=fields.get("index") or fields["id"],
            next_index=fields.get("next_index", ""),
            reindex_job=fields.get("reindex_job", ""),
        )

    def as_json(self) -> dict[str, object]:
        """What a client sees."""
        return {
            "id": self.id,
            "object": "collection",
            "name": self.name,
            "embedding_model": self.embedding_model,
            "embedding_revision": self.embedding_revision or None,
            "chunk_tokens": self.chunk_tokens,
            "chunk_overlap_tokens": self.chunk_overlap_tokens,
            "reindex_job": self.reindex_job or None,
            "created_at": self.created_at,
        }


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with some pages of a document: which, such as ``1-3, 7``, and a sentence about them."""

    pages: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One uploaded file. ``name`` is the client's file name: data, never a path; ``version`` counts the documents of that name
    in the collection, from 1. Sizes in bytes, times in Unix milliseconds.

    ``replaces`` is the id of the document that was ready under the name until this one was, or ""."""

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
            problems=[Problem(**problem) for problem in json.loads(fields.get("problems") or "[]")],
        )

    def as_json(self) -> dict[str, object]:
        """What a client sees."""
        return {
            "id": self.id,
            "object": "document",
            "collection": self.collection,
            "name": self.name,
            "version": self.version,
            "size": self.size,
            "sha256": self.sha256,
            "media_type": self.media_type,
            "status": self.status,
            "reason": self.reason or None,
            "pages": self.pages,
            "pages_done": self.pages_done,
            "chunks": self.chunks,
            "problems": [asdict(problem) for problem in self.problems],
            "job_id": self.job_id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "metadata": dict(self.metadata),
        }


def _number(text: str | None) -> int | None:
    return int(text) if text else None
