"""A stack whose data stay in a folder, so that a collection is indexed once and measured many times."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from enginehouse_client import Client
from testing.stack import MINILM, Stack

INDEXING_SECONDS = 3600


@contextmanager
def connected(folder: Path, url: str | None, reranker: str | None) -> Iterator[Client]:
    """A client of the server at ``url``, or of a stack with its data in ``folder``, which embeds with all-MiniLM-L6-v2 and has ``reranker``."""
    if url:
        with Client(url) as client:
            yield client
        return
    folder.mkdir(parents=True, exist_ok=True)
    stack = Stack(folder, embedding=MINILM, environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING", "ENGINEHOUSE_CPU_WORKERS": "2"})
    entries = [entry for entry in json.loads(stack.models.read_text()) if entry.get("task") != "rerank"]
    entries += [{"name": "reranker", "url": reranker, "task": "rerank"}] if reranker else []
    stack.models.write_text(json.dumps(entries))
    try:
        stack.start()
        with Client(stack.url) as client:
            yield client
        stack.stop()
    finally:
        stack.kill()


def index_files(client: Client, collection: str, files: Sequence[Path], chunk_tokens: int) -> tuple[int, int]:
    """Index the files unless the collection has them; returns its numbers of pages and chunks."""
    if collection not in {existing.name for existing in client.collections()}:
        client.request("POST", "/collections", json={"name": collection, "chunk_tokens": chunk_tokens})
    present = {document.name for document in client.documents(collection) if document.status == "ready"}
    missing = [path for path in files if path.name not in present]
    if missing:
        outcome = client.ingest(collection, missing, timeout=INDEXING_SECONDS)
        if outcome.rejected:
            raise SystemExit(f"{outcome.rejected[0].name} cannot be indexed: {outcome.rejected[0].reason}")
    documents = list(client.documents(collection))
    return sum(document.pages or 0 for document in documents), sum(document.chunks or 0 for document in documents)
