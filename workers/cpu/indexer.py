"""Indexing of a parsed document: chunk its pages, embed the chunks, store them. Ingest and reindex share it.

The status of a document, and whether it may be shown, are the callers' concern.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.documents.descriptions import IndexState, write_index_state
from shared.documents.files import DocumentFiles
from shared.documents.models import Collection, Document
from shared.documents.text_index import DocumentAttributes
from shared.jobs.usage import Usage
from shared.settings import Settings
from workers.cpu.chunking import Chunk, chunk_pages
from workers.cpu.cpu_slots import CpuSlots, machine_cpu_slots
from workers.cpu.parsing.parser import Page
from workers.index.embedder import Embedder
from workers.index.search_index import SearchIndex

# Chunks per embedding step: large enough to batch by length, small enough that a cancel takes effect within seconds.
EMBED_BATCH = 300

ProgressCallback = Callable[[str, int, int, str], None]
"""Called with the phase, units done, units in total, and the name of the unit."""

ChunkText = tuple[tuple[str, ...], str]
"""The headings and the text of a chunk, of which its vector is made."""

KnownVectors = Callable[[Sequence[ChunkText]], Mapping[ChunkText, Sequence[float]]]


def ignore_progress(phase: str, done: int, total: int, unit: str) -> None:
    """Progress callback that does nothing."""


@dataclass(frozen=True)
class Indexer:
    """Writer of documents into one index of a collection, with one embedding model. ``usage`` counts the tokens that it embeds, and
    ``known_vectors`` finds vectors that this model has made before."""

    index: str
    collection: Collection
    embedder: Embedder
    settings: Settings
    search_index: SearchIndex
    usage: Usage = field(default_factory=Usage)
    known_vectors: KnownVectors | None = None

    @property
    def files(self) -> DocumentFiles:
        return DocumentFiles(self.settings.documents_dir)

    @property
    def slots(self) -> CpuSlots:
        return machine_cpu_slots(self.settings)

    @property
    def chunk_tokens(self) -> tuple[int, int]:
        """Chunk size and overlap: the collection's or else the server's, limited to what the model can read."""
        collection, settings = self.collection, self.settings
        size = min(collection.chunk_tokens or settings.chunk_tokens, self.embedder.max_tokens("passage"))
        overlap = collection.chunk_overlap_tokens
        return size, min(settings.chunk_overlap_tokens if overlap is None else overlap, size // 2)

    def index_document(
        self, document: Document, check: Callable[[], None], on_progress: ProgressCallback = ignore_progress
    ) -> int:
        """Chunk, embed and store a whole document; return its number of chunks.

        ``check`` and ``on_progress`` may raise between steps. A repeated call continues after the chunks that have vectors.
        """
        count, _ = self.find_progress(document.id) or (0, 0)
        if not count:
            count = self.write_chunks(document, check, on_progress)
        self.embed_chunks(document, count, check, on_progress)
        self.store_text(document, stale_vectors_from=count)
        self.forget_progress(document.id)
        return count

    def write_chunks(self, document: Document, check: Callable[[], None], on_progress: ProgressCallback) -> int:
        """Write ``chunks.jsonl``; return the number of chunks."""
        size, overlap = self.chunk_tokens
        self._progress_file(document.id).unlink(missing_ok=True)
        pages = read_parsed_pages(self.files, document.id)
        count = 0
        with self.files.replace(document.id, "chunks.jsonl") as target:
            for chunk in chunk_pages(pages, self.embedder.count_tokens, size=size, overlap=overlap, name=document.name):
                target.write(json.dumps(dataclasses.asdict(chunk), ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                count += 1
                if count % EMBED_BATCH == 0:
                    check()
                    on_progress("chunking", chunk.page, document.pages, "pages")
        return count

    def embed_chunks(self, document: Document, total: int, check: Callable[[], None], on_progress: ProgressCallback) -> None:
        """Store the vectors of all chunks in ``chunks.jsonl``, except those that an interrupted attempt has stored."""
        _, done = self.find_progress(document.id) or (total, 0)
        for batch in self._batches(document.id):
            if batch[-1].position < done:
                continue
            check()
            vectors = self._embed(batch)
            check()
            self.search_index.put_vectors(self.index, document.id, [chunk.position for chunk in batch], vectors)
            done = batch[-1].position + 1
            with self.files.replace(document.id, "embedded.json") as target:
                target.write(json.dumps({**self._plan, "chunks": total, "embedded": done}).encode())
            on_progress("embedding", done, total, "chunks")

    def find_progress(self, document_id: str) -> tuple[int, int] | None:
        """The number of chunks in ``chunks.jsonl`` and how many have vectors, if an interrupted attempt at this index left both."""
        try:
            progress = json.loads(self._progress_file(document_id).read_bytes())
        except FileNotFoundError:
            return None
        chunks, embedded = progress.pop("chunks"), progress.pop("embedded")
        if progress != self._plan or self.search_index.vector_count(self.index, document_id) < embedded:
            return None
        return chunks, embedded

    def forget_progress(self, document_id: str) -> None:
        self._progress_file(document_id).unlink(missing_ok=True)

    @property
    def _plan(self) -> dict[str, object]:
        """What determines the chunks of a document and where they are stored."""
        return {"index": self.index, "chunk_tokens": list(self.chunk_tokens), "revision": self.embedder.revision}

    def _progress_file(self, document_id: str) -> Path:
        return self.files.path(document_id, "embedded.json")

    def store_text(self, document: Document, *, stale_vectors_from: int | None) -> None:
        """Store the text of all chunks in ``chunks.jsonl``, as ``SearchIndex.put_document`` does."""
        attributes = DocumentAttributes(
            id=document.id,
            name=document.name,
            media_type=document.media_type,
            size=document.size,
            created_at=document.created_at / 1000,
            metadata=document.metadata,
        )
        chunks = (chunk for batch in self._batches(document.id) for chunk in batch)
        self.search_index.put_document(self.index, attributes, chunks, stale_vectors_from=stale_vectors_from)
        state = IndexState(
            index=self.index,
            embedding_model=self.embedder.model,
            embedding_revision=self.embedder.revision,
            chunk_tokens=self.collection.chunk_tokens,
            chunk_overlap_tokens=self.collection.chunk_overlap_tokens,
        )
        write_index_state(self.files, document.id, state)

    def _embed(self, batch: Sequence[Chunk]) -> list[Sequence[float]]:
        """The vectors of some chunks: those that are known, and new ones for the others."""
        keys = [(tuple(chunk.headings), chunk.text) for chunk in batch]
        known = self.known_vectors(keys) if self.known_vectors is not None else {}
        texts = [self._embedding_input(chunk) for chunk, key in zip(batch, keys, strict=True) if key not in known]
        made: Iterator[Sequence[float]] = iter(())
        if texts:
            with self.slots.borrow_idle() as borrowed:
                made = iter(self.embedder.embed_texts(texts, role="passage", shares=1 + borrowed))
            self.usage.embedding_tokens += sum(map(self.embedder.count_tokens, texts))
        return [known[key] if key in known else next(made) for key in keys]

    def _embedding_input(self, chunk: Chunk) -> str:
        """The text of a chunk under its headings, or the text alone if the model could not read both to the end."""
        if not chunk.headings:
            return chunk.text
        with_headings = f"{' > '.join(chunk.headings)}\n{chunk.text}"
        return with_headings if self.embedder.count_tokens(with_headings) <= self.embedder.max_tokens("passage") else chunk.text

    def _batches(self, document_id: str) -> Iterator[Sequence[Chunk]]:
        batch: list[Chunk] = []
        with self.files.path(document_id, "chunks.jsonl").open("rb") as source:
            for line in source:
                batch.append(Chunk(**json.loads(line)))
                if len(batch) == EMBED_BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch


def read_parsed_pages(files: DocumentFiles, document_id: str) -> Iterator[Page]:
    """The pages in ``pages.jsonl``, one at a time."""
    with files.path(document_id, "pages.jsonl").open("rb") as source:
        for line in source:
            yield Page(**json.loads(line))
