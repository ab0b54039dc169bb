"""Vectors of texts, kept in a file. Missing ones are computed here, or on another machine by ``embed_texts.py``."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.peers import MODEL, URL
from workers.index.embedder import SentenceEmbedder

BATCH = 300


class VectorCache:
    """The vectors of all-MiniLM-L6-v2 in ``path``, by the hash of their text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.embedder = SentenceEmbedder(MODEL, URL)
        self._vectors: dict[str, Any] = {}
        if path.exists():
            with np.load(path) as stored:
                self._vectors = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Distinct texts without a vector."""
        return [text for text in dict.fromkeys(texts) if _key(text) not in self._vectors]

    def vectors(self, texts: Sequence[str]) -> Any:
        """One row for each text; computes and keeps those that are missing."""
        missing = self.missing(texts)
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            self.add(batch, np.array(self.embedder.embed_texts(batch)))
        return np.array([self._vectors[_key(text)] for text in texts], dtype=np.float32)

    def add(self, texts: Sequence[str], vectors: Any) -> None:
        """Keep the vectors of texts."""
        self._vectors |= {_key(text): vector for text, vector in zip(texts, vectors.astype(np.float16), strict=True)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(self._path, keys=np.array(list(self._vectors)), vectors=np.array(list(self._vectors.values())))


def export_texts(texts: Sequence[str], target: Path) -> None:
    """Write texts for ``embed_texts.py``."""
    with gzip.open(target, "wt", encoding="utf-8") as file:
        json.dump(list(texts), file)


def import_vectors(cache: VectorCache, texts: Path, vectors: Sequence[Path]) -> None:
    """Keep what ``embed_texts.py`` computed for the texts of ``export_texts``."""
    with gzip.open(texts, "rt", encoding="utf-8") as file:
        cache.add(json.load(file), np.concatenate([np.load(path) for path in vectors]))


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
