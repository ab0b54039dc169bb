"""From the pages of a document to its chunks in an index: cut, embed, put. Both ingest and reindex go this way.

Knows nothing of how far a document has come or whether it may be shown.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shared.documents.files import DocumentFiles
from shared.documents.models import Collection, Document
from shared.documents.text_index import DocumentAttributes, TextIndex
from shared.settings import Settings
from workers.cpu.chunking import Chunk, chunk_pages
from workers.cpu.cpu_slots import CpuSlots, machine_cpu_slots
from workers.cpu.parsing.parser import Page
from workers.index.embedder import Embedder
from workers.index.vector_store import VectorStore

# Chunks embedded and indexed in one step: enough to be batched by length, few enough that a cancel is seen in seconds.
EMBED_BATCH = 300

ProgressCallback = Callable[[str, int, int, str], None]


def ignore_progress(phase: str, done: int, total: int, unit: str) -> None:
    """Tells nobody how far it is."""


@dataclass(frozen=True)
class Indexer:
    """Puts documents into one index of a collection, with one embedding model."""

    index: str
    collection: Collection
    embedder: Embedder
    settings: Settings
    vectors: VectorStore

    @property
    def files(self) -> DocumentFiles:
        return DocumentFiles(self.settings.documents_dir)

    @property
    def texts(self) -> TextIndex:
        return TextIndex(self.settings.text_index_dir)

    @property
    def slots(self) -> CpuSlots:
        return machine_cpu_slots(self.settings)

    @property
    def chunk_tokens(self) -> tuple[int, int]:
        """Size and overlap of chunks: the collection's, or the server's, as far as the model sees."""
        collection, settings = self.collection, self.settings
        size = min(collection.chunk_tokens or settings.chunk_tokens, self.embedder.max_tokens)
        overlap = collection.chunk_overlap_tokens
        return size, min(settings.chunk_overlap_tokens if overlap is None else overlap, size // 2)

    def put(self, document: Document, check: Callable[[], None], told: ProgressCallback = ignore_progress) -> int:
        """Cut, embed and put a whole document; how many chunks it has. ``check`` may raise, between steps."""
        chunks = self.write_chunks(document, check, told)
        self.embed(document, chunks, check, told)
        self.finish(document, chunks)
        return chunks

    def write_chunks(self, document: Document, check: Callable[[], None], told: ProgressCallback) -> int:
        """Write ``chunks.jsonl``; chunks in all."""
        size, overlap = self.chunk_tokens
        pages = pages_of(self.files, document.id)
        count = 0
        with self.files.replace(document.id, "chunks.jsonl") as target:
            for chunk in chunk_pages(pages, self.embedder.count_tokens, size=size, overlap=overlap, name=document.name):
                target.write(json.dumps(dataclasses.asdict(chunk), ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                count += 1
                if count % EMBED_BATCH == 0:
                    check()
                    told("chunking", chunk.page, document.pages, "pages")
        return count

    def embed(self, document: Document, total: int, check: Callable[[], None], told: ProgressCallback) -> None:
        """Put the vectors of all chunks, as ``chunks.jsonl`` has them."""
        done = 0
        for batch in self._batches(document.id):
            check()
            with self.slots.borrow_idle() as more:
                vectors = self.embedder.encode([self._embedded(chunk) for chunk in batch], shares=1 + more)
            check()
            self.vectors.put_vectors(self.index, document.id, [chunk.position for chunk in batch], vectors)
            done += len(batch)
            told("embedding", done, total, "chunks")

    def finish(self, document: Document, total: int, *, leftovers: bool = True) -> None:
        """Put the text of all chunks, and drop the vectors that an earlier attempt, perhaps with other settings, put behind
        them; without ``leftovers`` there can be none."""
        if leftovers:
            self.vectors.remove_vectors(self.index, document.id, from_position=total)
        about = DocumentAttributes(
            id=document.id,
            name=document.name,
            media_type=document.media_type,
            size=document.size,
            created_at=document.created_at / 1000,
            metadata=document.metadata,
        )
        self.texts.put_document(self.index, about, (chunk for batch in self._batches(document.id) for chunk in batch))

    def _embedded(self, chunk: Chunk) -> str:
        """What the model reads of a chunk: its titles too, as far as it sees the end of the text with them."""
        if not chunk.headings:
            return chunk.text
        with_titles = f"{' > '.join(chunk.headings)}\n{chunk.text}"
        return with_titles if self.embedder.count_tokens(with_titles) <= self.embedder.max_tokens else chunk.text

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


def pages_of(files: DocumentFiles, document_id: str) -> Iterator[Page]:
    """The pages of a document that has been parsed."""
    with files.path(document_id, "pages.jsonl").open("rb") as source:
        for line in source:
            yield Page(**json.loads(line))
