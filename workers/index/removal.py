"""Takes documents and collections out of every index: vectors and texts, of the index that answers and of one being made.

Knows nothing of records and files. Every step may be repeated.
"""

from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.errors import NotFound
from workers.index.vector_store import VectorStore


def remove_from_indexes(
    document_id: str,
    collection_id: str,
    *,
    documents: Documents,
    vectors: VectorStore,
    texts: TextIndex,
    position: int | None = None,
) -> None:
    """Remove a document, or one chunk of it, from the indexes of its collection; when that is gone, remove them all.

    Raises IndexUnavailable.
    """
    try:
        collection = documents.collection_by_id(collection_id)
    except NotFound:
        drop_indexes(collection_id, vectors=vectors, texts=texts)
        return
    texts.remove_document(collection.index, document_id, position=position)
    vectors.remove_vectors(collection.index, document_id, position=position)
    if collection.next_index:
        # Its chunks may be cut in other places, so the whole document goes; the reindex finds it missing and puts it again.
        texts.remove_document(collection.next_index, document_id)
        vectors.remove_vectors(collection.next_index, document_id)


def drop_indexes(collection_id: str, *, vectors: VectorStore, texts: TextIndex) -> None:
    """Remove all indexes of a collection. Raises IndexUnavailable."""
    for index in texts.list_indexes(collection_id):
        texts.drop_index(index)
    for index in vectors.list_indexes(collection_id):
        vectors.drop_index(index)
