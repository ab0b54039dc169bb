"""Document descriptions: two small files beside each original, from which its record can be made again if Redis loses it.

``document.json`` is written before the record. ``indexed.json`` says in which index the document is, and how it was made; without
it, the document has to be indexed again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from shared.documents.files import DocumentFiles
from shared.documents.filters import Scalar
from shared.documents.models import Collection
from shared.ids import DOCUMENT, is_id


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a document's record needs and its files do not say. ``created_at`` is in Unix milliseconds."""

    owner: str
    collection_id: str
    collection: str
    collection_created_at: int
    embedding_model: str
    chunk_tokens: int | None = None
    chunk_overlap_tokens: int | None = None
    name: str
    size: int
    sha256: str
    media_type: str
    version: int = 1
    created_at: int
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    file_id: str = ""
    url: str = ""
    title: str = ""
    ocr_languages: Sequence[str] = ()

    @classmethod
    def of_upload(
        cls,
        collection: Collection,
        *,
        name: str,
        size: int,
        sha256: str,
        media_type: str,
        created_at: int,
        metadata: Mapping[str, Scalar],
        version: int = 1,
        file_id: str = "",
        url: str = "",
    ) -> Self:
        return cls(
            owner=collection.owner,
            collection_id=collection.id,
            collection=collection.name,
            collection_created_at=collection.created_at,
            embedding_model=collection.embedding_model,
            chunk_tokens=collection.chunk_tokens,
            chunk_overlap_tokens=collection.chunk_overlap_tokens,
            name=name,
            size=size,
            sha256=sha256,
            media_type=media_type,
            version=version,
            created_at=created_at,
            metadata=dict(metadata),
            file_id=file_id,
            url=url,
            title=collection.title,
            ocr_languages=list(collection.ocr_languages),
        )


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """The index that has all chunks of a document, and what they were made with."""

    index: str
    embedding_model: str
    embedding_revision: str
    chunk_tokens: int | None = None
    chunk_overlap_tokens: int | None = None


def write_description(files: DocumentFiles, document_id: str, description: Description) -> None:
    with files.replace(document_id, "document.json") as target:
        target.write(json.dumps(asdict(description), ensure_ascii=False).encode("utf-8", "surrogatepass"))


def write_index_state(files: DocumentFiles, document_id: str, state: IndexState) -> None:
    with files.replace(document_id, "indexed.json") as target:
        target.write(json.dumps(asdict(state)).encode())


def read_description(files: DocumentFiles, document_id: str) -> Description | None:
    """The description of a document; None if it is missing or damaged."""
    try:
        return Description(**json.loads(files.path(document_id, "document.json").read_bytes().decode("utf-8", "surrogatepass")))
    except (OSError, ValueError, TypeError):
        return None


def read_index_state(files: DocumentFiles, document_id: str) -> IndexState | None:
    """The index of a document; None if it is not known."""
    try:
        return IndexState(**json.loads(files.path(document_id, "indexed.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def remove_description(files: DocumentFiles, document_id: str) -> None:
    """Remove the description of a document that is about to be deleted, so that it is never made again."""
    files.path(document_id, "document.json").unlink(missing_ok=True)


def document_folders(root: Path) -> Iterator[str]:
    """The ids of all documents with a folder, in order."""
    if root.exists():
        yield from sorted(path.name for path in root.iterdir() if is_id(DOCUMENT, path.name))
