"""Index cost at scale: write rate, size and query time of the text index, and of Chroma with and without chunk text.

The corpus is the Python source of this installation in pieces of 800 characters; its word frequencies are as uneven as those
of prose. Vectors are random, because their values do not affect the cost. Run: ``.venv/bin/python -m benchmarks.text_index``.
"""

import argparse
import random
import re
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import chromadb
import numpy

from benchmarks.figures import figure, percentile
from cli.local.redis_server import free_port
from shared.documents.filters import parse_filter
from shared.documents.text_index import DocumentAttributes, TextIndex
from testing.chroma_server import ChromaServer
from workers.cpu.chunking import Chunk
from workers.index.vector_store import VectorStore, login_header

PIECE = 800
CHUNKS_PER_DOCUMENT = 100
DIMENSIONS = 384
QUERIES = 200
INDEX = "col_figures"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--chunks", type=int, default=100_000)
    arguments.add_argument("--vectors", type=int, default=20_000, help="vectors to store in Chroma, per variant")
    options = arguments.parse_args()
    random.seed(1)
    pieces = list(islice(corpus(), options.chunks))
    with tempfile.TemporaryDirectory() as folder:
        text_index(Path(folder) / "text", pieces)
        chroma(Path(folder) / "chroma", pieces[: options.vectors])


def corpus() -> Iterator[str]:
    """Pieces of the Python source of this installation."""
    for path_name in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_paths()[path_name]).rglob("*.py")):
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def text_index(folder: Path, pieces: list[str]) -> None:
    texts = TextIndex(folder)
    started = time.perf_counter()
    for number in range(0, len(pieces), CHUNKS_PER_DOCUMENT):
        put_file(texts, number // CHUNKS_PER_DOCUMENT, pieces[number : number + CHUNKS_PER_DOCUMENT])
    size = len(pieces)
    figure("text_index.chunks_per_second", size / (time.perf_counter() - started), "chunks/s", chunks=size)
    figure("text_index.bytes_per_chunk", (folder / f"{INDEX}.db").stat().st_size / size, "bytes", chunks=size)
    queries = [question(random.choice(pieces)) for _ in range(QUERIES)]
    condition = parse_filter({"metadata.year": 2005})

    def timed(name: str, ask: Callable[[str], object]) -> None:
        seconds = []
        for query in queries:
            started = time.perf_counter()
            ask(query)
            seconds.append(time.perf_counter() - started)
        for percent in (50, 95):
            figure(f"text_index.p{percent}_ms", percentile(seconds, percent) * 1000, "ms", query=name, chunks=size)

    timed("8 words", lambda query: texts.search_text(INDEX, query, 58))
    timed("8 words, a filter that one document in twenty matches", lambda query: texts.search_text(INDEX, query, 58, condition))
    timed("chunks that match the filter", lambda query: texts.matching_chunks(INDEX, condition, 50_000))
    stop = threading.Event()

    def write() -> None:
        number = size
        while not stop.wait(0.5):
            put_file(texts, number, pieces[:300])
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    timed("8 words, while 300 chunks are written twice a second", lambda query: texts.search_text(INDEX, query, 58))
    stop.set()
    writer.join()


def put_file(texts: TextIndex, number: int, pieces: list[str]) -> None:
    attributes = DocumentAttributes(
        id=f"doc_{number:026d}",
        name=f"{number}.py",
        media_type="text/plain",
        size=1,
        created_at=0.0,
        metadata={"year": 2000 + number % 20},
    )
    texts.put_document(INDEX, attributes, (Chunk(n, 1, 0, len(piece), piece) for n, piece in enumerate(pieces)))


def question(piece: str) -> str:
    words = re.findall(r"\w+", piece)
    start = random.randrange(max(1, len(words) - 8))
    return " ".join(words[start : start + 8])


def chroma(folder: Path, pieces: list[str]) -> None:
    server = ChromaServer(folder, free_port())
    server.start()
    try:
        vectors, client = VectorStore(server.url), chromadb.HttpClient(port=server.port, headers=login_header(server.url))
        random_vectors = numpy.random.default_rng(0).normal(size=(len(pieces), DIMENSIONS)).astype("float32")
        random_vectors /= numpy.linalg.norm(random_vectors, axis=1, keepdims=True)
        rates, before = {}, 0
        for variant in ("vectors only", "vectors and text"):
            started = time.perf_counter()
            for first in range(0, len(pieces), 300):
                batch = slice(first, first + 300)
                if variant == "vectors only":
                    positions = list(range(first, min(first + 300, len(pieces))))
                    vectors.put_vectors(INDEX, f"doc_{0:026d}", positions, random_vectors[batch].tolist())
                else:
                    with_text(client, pieces, random_vectors, batch)
            rates[variant] = len(pieces) / (time.perf_counter() - started)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            figure("chroma.chunks_per_second", rates[variant], "chunks/s", variant=variant, chunks=len(pieces))
            figure("chroma.bytes_per_chunk", (size - before) / len(pieces), "bytes", variant=variant, chunks=len(pieces))
            before = size
        figure("chroma.without_text_ratio", rates["vectors only"] / rates["vectors and text"], "without / with text")
    finally:
        server.kill()


def with_text(client: Any, pieces: list[str], vectors: "numpy.ndarray", batch: slice) -> None:
    """Store vectors with their text in Chroma, for comparison."""
    target = client.get_or_create_collection("with_text", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)
    numbers = range(len(pieces))[batch]
    target.upsert(
        ids=[f"doc_{0:026d}:{number}" for number in numbers],
        embeddings=vectors[batch].tolist(),
        documents=pieces[batch],
        metadatas=[{"document": f"doc_{0:026d}", "position": number, "page": 1, "start": 0, "end": 800} for number in numbers],
    )


if __name__ == "__main__":
    main()
