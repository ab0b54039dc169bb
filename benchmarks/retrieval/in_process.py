"""The search of Enginehouse and the defaults of other tools in one process, to compare many variants of an index in minutes.

Reader, splitter, text index, fusion and search are the product's. What differs from a running server: files are read without the
sandbox, vectors come from a cache, and the nearest ones are found exactly instead of by Chroma's graph.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.peers import PEERS, Peer, load_pages
from benchmarks.retrieval.vector_cache import VectorCache
from cli.remote.evaluation.metrics import DEPTH
from shared.documents.media_types import PDF
from shared.documents.models import Collection
from shared.documents.text_index import DocumentAttributes, TextIndex
from workers.cpu.chunking import Chunk, chunk_pages
from workers.cpu.ocr.ocr_pages import merge, needs_ocr
from workers.cpu.ocr.recognizer import OcrLimits, OcrResult, PageRequest, recognize_pages
from workers.cpu.parsing.parser import Page
from workers.cpu.readers.pdf import PdfiumReader
from workers.cpu.readers.text_builder import clean_text
from workers.cpu.repeated_lines import RepeatedLines
from workers.index.search_index import SearchResult
from workers.io.search import SearchQuery, search_passages

OCR_LIMITS = OcrLimits(page_seconds=600, memory_bytes=2 << 30, max_picture_pixels=100_000_000, max_page_characters=1_000_000)


@dataclass(frozen=True)
class Variant:
    """Settings of an index of Enginehouse."""

    chunk_tokens: int = 200
    outline: bool = True
    """Whether the outline of a PDF divides it into sections, whose titles are embedded and indexed."""
    layout: bool = True
    """Whether tables and columns are arranged, and repeated headers and footers removed."""

    @property
    def name(self) -> str:
        return "-".join([str(self.chunk_tokens), "outline" if self.outline else "plain", *(["layout"] if self.layout else [])])


def read_pages(path: Path, variant: Variant) -> list[Page]:
    """The pages of a PDF as an index of this variant has them."""
    reader = PdfiumReader(str(path), "", arranged=variant.layout)
    pages = []
    for number in range(1, reader.pages + 1):
        content = reader.read_page(number)
        headings = content.headings if variant.outline else []
        pages.append(Page(number=number, text=clean_text(content.text), images=content.images, headings=headings))
    if any(map(needs_ocr, pages)):
        pages = read_pictures(path, pages)
    if not variant.layout:
        return pages
    repeated = RepeatedLines()
    for page in pages:
        repeated.count(page.number, page.text)
    return [repeated.remove(page) for page in pages]


def read_pictures(path: Path, pages: Sequence[Page]) -> list[Page]:
    """The pages, with those that are pictures read by OCR. What was read is kept beside the file, so a later run continues."""
    stored = path.with_suffix(".ocr.jsonl")
    lines = stored.read_text(encoding="utf-8").splitlines() if stored.exists() else []
    found = {result.number: result for result in (OcrResult(**json.loads(line)) for line in lines)}
    missing = [PageRequest(page.number) for page in pages if needs_ocr(page) and page.number not in found]
    with stored.open("a", encoding="utf-8") as target:

        def keep(result: OcrResult) -> None:
            found[result.number] = result
            target.write(json.dumps(asdict(result)) + "\n")
            target.flush()

        recognize_pages(path, PDF, missing, "rapidocr", (), OCR_LIMITS, keep)
    return [merge(page, found[page.number]) if page.number in found else page for page in pages]


class Chunks:
    """Chunks of the files in one variant, kept in ``folder``."""

    def __init__(self, variant: Variant, files: Sequence[Path], folder: Path, cache: VectorCache) -> None:
        self.by_document: dict[str, list[Chunk]] = {}
        for path in files:
            stored = folder / variant.name / f"{path.name}.json"
            if not stored.exists():
                stored.parent.mkdir(parents=True, exist_ok=True)
                pages = read_pages(path, variant)
                size = variant.chunk_tokens
                pieces = chunk_pages(pages, cache.embedder.count_tokens, size=size, overlap=size // 10, name=path.name)
                stored.write_text(
                    json.dumps([[vars(chunk), _embedding_input(chunk, cache)] for chunk in pieces]), encoding="utf-8"
                )
            rows = json.loads(stored.read_text(encoding="utf-8"))
            self.by_document[path.name] = [Chunk(**fields) for fields, _ in rows]
            self.texts = [*getattr(self, "texts", []), *(text for _, text in rows)]

    def refs(self) -> list[tuple[str, int]]:
        return [(name, chunk.position) for name, chunks in self.by_document.items() for chunk in chunks]


def _embedding_input(chunk: Chunk, cache: VectorCache) -> str:
    with_headings = "\n".join(filter(None, [" > ".join(chunk.headings), chunk.text]))
    return with_headings if cache.embedder.count_tokens(with_headings) <= cache.embedder.max_tokens("passage") else chunk.text


class InProcessIndex:
    """An index of one variant with the product's search. It is its own document store, embedder and vector store."""

    model = "cached"
    revision = ""

    def __init__(self, chunks: Chunks, folder: Path, cache: VectorCache) -> None:
        self._cache = cache
        self._refs = chunks.refs()
        self._vectors = cache.vectors(chunks.texts)
        self._texts = TextIndex(folder)
        self._texts.drop_index("index")
        for name, pieces in chunks.by_document.items():
            attributes = DocumentAttributes(id=name, name=name, media_type=PDF, size=1, created_at=0, metadata={})
            self._texts.put_document("index", attributes, pieces)
        self._collection = Collection(
            id="c", owner="local", name="manuals", embedding_model=self.model, created_at=0, index="index"
        )

    def search(self, query: str, mode: Any) -> list[dict[str, Any]]:
        """Hits in the form of the HTTP API."""
        this: Any = self
        outcome = search_passages(
            SearchQuery(query=query, mode=mode, top_k=DEPTH), self._collection, documents=this, embedders=this, search_index=this
        )
        return [{"document": passage.document, "page": passage.page, "text": passage.text} for passage in outcome.passages]

    def ready_names(self, ids: set[str], collection: str) -> dict[str, str]:
        return {name: name for name in ids}

    def for_model(self, name: str) -> "InProcessIndex":
        return self

    def embed_texts(self, texts: list[str], *, role: str) -> list[Any]:
        return list(self._cache.vectors(texts))

    def search_text(self, index: str, query: str, limit: int, condition: None) -> SearchResult:
        chunks = self._texts.search_text(index, query, limit)
        return SearchResult(chunks, exhausted=len(chunks) < limit)

    def search_vectors(self, index: str, vector: Any, limit: int, condition: None) -> SearchResult:
        refs = [self._refs[row] for row in nearest_rows(self._vectors, vector, limit)]
        loaded = self._texts.load_chunks(index, refs)
        return SearchResult([loaded[ref] for ref in refs], exhausted=len(refs) < limit)


class InProcessPeer:
    """The pieces of another tool, with their exact nearest neighbours."""

    def __init__(self, peer: Peer, files: Sequence[Path], folder: Path, cache: VectorCache, pages: dict[str, list[Any]]) -> None:
        from langchain_text_splitters import RecursiveCharacterTextSplitter

        self._cache = cache
        self._rows: list[list[Any]] = []
        splitter = RecursiveCharacterTextSplitter(**peer.splitter)
        for path in files:
            stored = folder / peer.name / f"{path.name}.json"
            if not stored.exists():
                stored.parent.mkdir(parents=True, exist_ok=True)
                pieces = splitter.split_documents(load_pages(path, pages))
                stored.write_text(json.dumps([[path.name, piece.metadata["page"] + 1, piece.page_content] for piece in pieces]))
            self._rows += json.loads(stored.read_text(encoding="utf-8"))
        self.chunks = len(self._rows)
        self.texts = [text for _, _, text in self._rows]

    def search(self, query: str) -> list[dict[str, Any]]:
        rows = nearest_rows(self._cache.vectors(self.texts), self._cache.vectors([query])[0], DEPTH)
        return [dict(zip(("document", "page", "text"), self._rows[row], strict=True)) for row in rows]


def nearest_rows(vectors: Any, vector: Any, limit: int) -> list[int]:
    """The rows with the largest product, best first."""
    return [int(row) for row in np.argsort(-(vectors @ np.asarray(vector, dtype=np.float32)), kind="stable")[:limit]]


def peers(files: Sequence[Path], folder: Path, cache: VectorCache) -> Iterator[tuple[Peer, InProcessPeer]]:
    pages: dict[str, list[Any]] = {}
    for peer in PEERS:
        yield peer, InProcessPeer(peer, files, folder, cache, pages)
