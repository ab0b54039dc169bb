"""Embed texts on a machine that has only sentence-transformers: ``python embed_texts.py MODEL_FOLDER TEXTS.json.gz TARGET_FOLDER``.

Writes ``vectors-0.npy``, ``vectors-1.npy`` and so on, each with at most ROWS vectors.
"""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

ROWS = 16_000


def main(model: str, texts: str, target: str) -> None:
    with gzip.open(texts, "rt", encoding="utf-8") as file:
        rows = json.load(file)
    vectors = SentenceTransformer(model).float().encode(rows, batch_size=256, normalize_embeddings=True).astype(np.float16)
    for start in range(0, len(vectors), ROWS):
        np.save(Path(target, f"vectors-{start // ROWS}.npy"), vectors[start : start + ROWS])


if __name__ == "__main__":
    main(*sys.argv[1:])
