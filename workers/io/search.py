"""Finds the chunks of a collection that are nearest to a query, of documents that are ready.

Knows nothing of prompts or of what the chunks are for.
"""

from shared.documents.record import Collection
from shared.documents.store import Documents
from shared.errors import EmbeddingModelMismatch
from workers.embedding import Embedder
from workers.passages import Passage
from workers.vectors import Vectors


def search(
    query: str, collection: Collection, top_k: int, *, documents: Documents, embedder: Embedder, vectors: Vectors
) -> list[Passage]:
    """The ``top_k`` best passages, best first; fewer when the collection has no more.

    Raises IndexUnavailable, and EmbeddingModelMismatch when the collection was made with an
    embedding model that is not this one.
    """
    if collection.embedding_model != embedder.model:
        raise EmbeddingModelMismatch(
            f"Collection {collection.name!r} was made with the embedding model {collection.embedding_model}, and this worker has "
            f"{embedder.model}. Bring the model back in models.json, or ingest the documents into another collection.",
        )
    [vector] = embedder.encode([query])
    # Chunks of documents that are under way, failed or just deleted are in the index too, and must not be shown.
    wanted = top_k + 8
    while True:
        hits = vectors.query(collection.id, vector, wanted)
        names = documents.ready_names(hit.document_id for hit in hits)
        passages = [
            Passage(
                document_id=hit.document_id,
                document=names[hit.document_id],
                page=hit.page,
                start=hit.start,
                end=hit.end,
                text=hit.text,
                score=hit.score,
            )
            for hit in hits
            if hit.document_id in names
        ]
        if len(passages) >= top_k or len(hits) < wanted:
            return passages[:top_k]
        wanted *= 4
