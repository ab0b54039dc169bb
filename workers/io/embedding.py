"""Embedding jobs: the vectors of a list of texts, for clients that search by themselves."""

import base64
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any

from shared.errors import EmbeddingModelMismatch, InvalidValue, ModelUnavailable
from workers.index.embedder import Embedder, EmbedderSource
from workers.index.prefixes import TextRole
from workers.runtime.attempt import AttemptHandle

# The job checks for a cancel request after this number of texts.
BATCH = 256


def embed(attempt: AttemptHandle, embedders: EmbedderSource) -> dict[str, Any]:
    """Embed the ``texts`` of a job. The vectors are float32, little-endian, one after the other in base64.

    Raises InvalidValue for a text that is too long: cut, its vector would silently stand for another text.
    """
    name, texts = attempt.spec["model"], list(attempt.spec["texts"])
    role: TextRole = attempt.spec.get("role", "raw")
    try:
        embedder = embedders.for_model(name)
    except EmbeddingModelMismatch as error:
        raise ModelUnavailable(
            f"This worker has no embedding model {name!r}. Restart it after a change of the models file.", param="model"
        ) from error
    tokens = _count_tokens(embedder, texts, role)
    vectors: list[list[float]] = []
    for start in range(0, len(texts), BATCH):
        attempt.raise_if_stopped()
        vectors += embedder.embed_texts(texts[start : start + BATCH], role=role)
    attempt.usage.embedding_tokens = tokens
    return {"vectors": pack_vectors(vectors), "dimension": embedder.dimensions, "tokens": tokens}


def pack_vectors(vectors: Sequence[Sequence[float]]) -> str:
    """Vectors as base64 of float32."""
    packed = array("f", chain.from_iterable(vectors))
    # All platforms that this runs on are little-endian, as torch's are.
    return base64.b64encode(packed.tobytes()).decode()


def _count_tokens(embedder: Embedder, texts: Sequence[str], role: TextRole) -> int:
    """The tokens of all texts with their prefixes."""
    limit, total = embedder.max_tokens(role), (embedder.max_tokens("raw") - embedder.max_tokens(role)) * len(texts)
    for index, text in enumerate(texts):
        count = embedder.count_tokens(text)
        if count > limit:
            raise InvalidValue(
                f"input: text {index} has {count} tokens, and model {embedder.model} takes at most {limit}. Split it into shorter texts.",
                param="input",
                details={"limit": limit, "index": index, "tokens": count},
            )
        total += count
    return total
