"""Search index: one interface over its two halves, the text index (SQLite) and the vector store (Chroma).

Ingest, reindex, delete, search and the index check all go through it, so that no caller can change one half and forget
the other. Every operation can be repeated. Which documents may be shown is not decided here: a document under way, or
one that was just replaced, has chunks in the index too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from shared.documents.filters import Condition
from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.documents.text_index import SEARCH_FORM_VERSION, ChunkRecord, ChunkRef, DocumentAttributes, IndexedChunk, TextIndex
from shared.errors import NotFound, ReindexNeeded
from shared.settings import Settings
from workers.index.vector_store import VectorStore

MAX_FILTER_CHUNKS = 50_000
"""Chunks that match a filter and are passed to the vector store by id. When more match, the filter excludes little, and
the hits that do not match are dropped afterwards."""


@dataclass(frozen=True)
class SearchResult:
    """Chunks found, best first; ``exhausted`` means that a larger limit would find no more."""

    chunks: list[IndexedChunk]
    exhausted: bool


class SearchIndex:
    """All indexes of all collections. Safe to share between threads.

    A collection answers from one index; a reindex builds another beside it. ``documents`` says which indexes those are.
    Every method raises IndexUnavailable when a half that it needs cannot be used.
    """

    def __init__(self, documents: Documents, texts: TextIndex, vectors: VectorStore) -> None:
        self._documents = documents
        self._texts = texts
        self._vectors = vectors

    @classmethod
    def from_settings(cls, documents: Documents, settings: Settings, *, on_timeout: Callable[[], None] = lambda: None) -> Self:
        """``on_timeout`` is called when the Chroma server is alive but did not answer a request in time."""
        return cls(documents, TextIndex(settings.text_index_dir), VectorStore(settings.chroma_url, on_timeout=on_timeout))

    def put_vectors(self, index: str, document_id: str, positions: Sequence[int], vectors: Sequence[Sequence[float]]) -> None:
        """Store the vectors of some chunks of a document, replacing those at the same positions."""
        self._vectors.put_vectors(index, document_id, positions, vectors)

    def put_document(
        self,
        index: str,
        attributes: DocumentAttributes,
        chunks: Iterable[ChunkRecord],
        *,
        stale_vectors_from: int | None = None,
    ) -> None:
        """Replace the text of a document whose vectors are stored.

        An earlier attempt, perhaps with other chunk settings, may have left vectors beyond the last chunk: those from
        position ``stale_vectors_from`` are removed. The text comes last, because a document that has text is complete.
        """
        if stale_vectors_from is not None:
            self._vectors.remove_vectors(index, attributes.id, from_position=stale_vectors_from)

        def read_latest() -> tuple[str, Mapping[str, Any]] | None:
            document = self._documents.find(attributes.id)
            return None if document is None else (document.name, document.metadata)

        self._texts.put_document(index, attributes, chunks, read_latest=read_latest)

    def remove_from_collection(self, collection_id: str, document_id: str, *, position: int | None = None) -> None:
        """Remove a document, or the chunk at ``position``, from every index of its collection.

        If the collection no longer exists, all its indexes are dropped.
        """
        try:
            collection = self._documents.collection_by_id(collection_id, hidden=True)
        except NotFound:
            self.drop_collection(collection_id)
            return
        self.remove_from_index(collection.index, document_id, position=position)
        if collection.next_index:
            # The next index may split the document at other positions, so the whole document is removed from it. The
            # reindex finds that it is missing and puts it again.
            self.remove_from_index(collection.next_index, document_id)

    def remove_from_index(self, index: str, document_id: str, *, position: int | None = None) -> None:
        """Remove a document, or the chunk at ``position``, from one index."""
        self._texts.remove_document(index, document_id, position=position)
        self._vectors.remove_vectors(index, document_id, position=position)

    def drop_index(self, index: str) -> None:
        """Delete one index."""
        self._texts.drop_index(index)
        self._vectors.drop_index(index)

    def drop_text(self, index: str) -> None:
        """Delete the text of an index, for example because its file is damaged. Its vectors stay."""
        self._texts.drop_index(index)

    def drop_vectors(self, index: str) -> None:
        """Delete the vectors of an index, for example because their files are damaged. Its text stays."""
        self._vectors.drop_index(index)

    def missing_half(self, index: str) -> str:
        """Which half of an index does not exist, ``text`` or ``vectors``; "" if both exist."""
        if not self._texts.has_index(index):
            return "text"
        return "" if self._vectors.has_index(index) else "vectors"

    def has_old_words(self, index: str) -> bool:
        """Whether the words of an index were brought into an older form than queries are now."""
        return self._texts.form_version(index) < SEARCH_FORM_VERSION

    def require_index(self, collection: Collection) -> None:
        """Raise ReindexNeeded if a half of a collection's index is missing although the collection has documents to find."""
        missing = self.missing_half(collection.index)
        if missing and self._documents.has_ready_document(collection.id):
            raise ReindexNeeded(
                f"The {missing} of the index of collection {collection.name!r} {'is' if missing == 'text' else 'are'} missing. "
                f"Rebuild it with POST /collections/{collection.name}/reindex."
            )

    def drop_collection(self, collection_id: str) -> None:
        """Delete all indexes of a collection."""
        for index in self.list_indexes(collection_id):
            self.drop_index(index)

    def list_indexes(self, collection_id: str = "") -> list[str]:
        """Names of all indexes, or of those of one collection; an index counts if either half has it."""
        return sorted({*self._texts.list_indexes(collection_id), *self._vectors.list_indexes(collection_id)})

    def read_vectors(self, index: str) -> Iterator[tuple[list[ChunkRef], bytes]]:
        """All vectors of an index, as ``VectorStore.read_vectors`` returns them."""
        return self._vectors.read_vectors(index)

    def vectors_at(self, index: str, document_id: str, positions: Sequence[int]) -> dict[int, Sequence[float]]:
        """The vectors of a document's chunks at these positions, as far as they exist."""
        return self._vectors.vectors_at(index, document_id, positions)

    def text_counts(self, index: str) -> dict[str, int]:
        """Number of chunks with text, by document id."""
        return self._texts.count_by_document(index)

    def vector_counts(self, index: str) -> dict[str, int]:
        """Number of vectors, by document id."""
        return self._vectors.count_by_document(index)

    def text_count(self, index: str, document_id: str) -> int:
        """Number of chunks with text of one document."""
        return self._texts.count_chunks(index, document_id)

    def vector_count(self, index: str, document_id: str) -> int:
        """Number of vectors of one document."""
        return self._vectors.count_vectors(index, document_id)

    def count_matching(self, index: str, condition: Condition | None = None) -> int:
        """The number of chunks with text in an index, or of those that match a filter."""
        return self._texts.count_matching(index, condition)

    def contains_document(self, index: str, document_id: str) -> bool:
        """Whether ``put_document`` has stored the document in this index."""
        return self._texts.contains_document(index, document_id)

    def document_chunks(self, index: str, document_id: str, *, first: int = 0, last: int | None = None) -> list[IndexedChunk]:
        """The chunks of a document in order, from position ``first`` to ``last``."""
        return self._texts.document_chunks(index, document_id, first=first, last=last)

    def search_text(self, index: str, query: str, limit: int, condition: Condition | None = None) -> SearchResult:
        """Keyword search; the score is BM25."""
        chunks = self._texts.search_text(index, query, limit, condition)
        return SearchResult(chunks, exhausted=len(chunks) < limit)

    def search_vectors(self, index: str, vector: Sequence[float], limit: int, condition: Condition | None = None) -> SearchResult:
        """Nearest chunks; the score is the cosine similarity."""
        matching = None if condition is None else self._texts.matching_chunks(index, condition, MAX_FILTER_CHUNKS)
        hits = self._vectors.nearest_chunks(index, vector, limit, matching)
        # Loading the text applies the filter again, for the case that too many chunks matched to pass them by id.
        loaded = self._texts.load_chunks(index, (hit.chunk_ref for hit in hits), condition)
        chunks = [replace(loaded[hit.chunk_ref], score=hit.score) for hit in hits if hit.chunk_ref in loaded]
        return SearchResult(chunks, exhausted=len(hits) < limit)
