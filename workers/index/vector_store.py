"""Vector store: the embeddings of chunks in a Chroma server, with one Chroma collection for each index.

A vector's id is made from document id and position, so storing a document twice overwrites it. The text of chunks is not
stored here but in ``shared/documents/text_index.py``: with text, Chroma accepts less than half as many vectors per second
and needs three times the disk space. The store does not know which documents may be shown.
"""

import base64
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from shared.documents.text_index import ChunkRef
from shared.errors import IndexUnavailable, ReindexNeeded
from shared.urls import without_login
from workers.index.library_imports import IMPORTS

logger = logging.getLogger(__name__)

BATCH = 300
"""Vectors per request: large enough to be fast, small enough that queries are served in between."""

CONNECT_SECONDS = 5.0
RESPONSE_SECONDS = 30.0

MAX_EXACT_SEARCH = 5_000
"""Largest index, or filter result, that is searched exactly when the graph search misses vectors: about 0.3 s."""

VECTOR_PAGE = 1_000
"""Vectors per request when reading them: about 8 MB of JSON."""

PAGE_SIZE = 5_000
"""Names or ids per request when listing."""

T = TypeVar("T")


@dataclass(frozen=True)
class VectorHit:
    """A chunk found by a query; ``score`` is the cosine similarity."""

    document_id: str
    position: int
    score: float

    @property
    def chunk_ref(self) -> ChunkRef:
        return self.document_id, self.position


class VectorStore:
    """Client of the Chroma server at ``url``, which may contain a user and a password. It connects on first use in each process and is safe to share between threads.

    Every method raises IndexUnavailable when the server is down, fails, or does not answer in time. ``on_timeout`` is called
    when a request timed out although the server is alive.
    """

    def __init__(self, url: str, *, on_timeout: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._on_timeout = on_timeout
        self._lock = threading.Lock()
        self._client: tuple[int, Any] | None = None

    def put_vectors(self, index: str, document_id: str, positions: Sequence[int], vectors: Sequence[Sequence[float]]) -> None:
        """Store the vectors of some chunks of a document, replacing those at the same positions."""

        def write(collection: Any) -> None:
            for first in range(0, len(positions), BATCH):
                batch = positions[first : first + BATCH]
                collection.upsert(
                    ids=[_vector_id((document_id, position)) for position in batch],
                    embeddings=vectors[first : first + BATCH],
                    metadatas=[{"document": document_id, "position": position} for position in batch],
                )

        if positions:
            self._send(lambda client: write(_collection(client, index)))

    def nearest_chunks(
        self, index: str, vector: Sequence[float], limit: int, candidates: Sequence[ChunkRef] | None = None
    ) -> list[VectorHit]:
        """The nearest chunks, best first, of the whole index or only of ``candidates``; none if there is no such index."""
        if candidates is not None and not candidates:
            return []
        candidate_ids = None if candidates is None else [_vector_id(ref) for ref in candidates]

        def nearest(client: Any) -> list[VectorHit]:
            collection = _existing_collection(client, index)
            if collection is None:
                return []
            ids = candidate_ids
            try:
                response = collection.query(query_embeddings=[vector], n_results=limit, ids=ids, include=["distances"])
            except Exception as error:
                # Chroma rejects the whole query if a single id does not exist (any more).
                if ids is None or "Error finding id" not in str(error):
                    raise
                ids = collection.get(ids=ids, include=[])["ids"]
                if not ids:
                    return []
                response = collection.query(query_embeddings=[vector], n_results=limit, ids=ids, include=["distances"])
            hits = [_hit(id, 1.0 - distance) for id, distance in zip(response["ids"][0], response["distances"][0], strict=True)]
            if len(hits) >= limit:
                return hits
            count = collection.count() if ids is None else len(ids)
            # Graph search does not reach every vector: it misses most of many identical ones, and some after a deletion.
            # A small index is then searched exactly.
            return _exact_search(collection, vector, limit, ids) if len(hits) < count <= MAX_EXACT_SEARCH else hits

        return self._send(nearest)

    def remove_vectors(self, index: str, document_id: str, *, position: int | None = None, from_position: int = 0) -> None:
        """Remove the vectors of a document, of one chunk, or from a position on. Missing vectors are ignored."""
        condition: dict[str, Any] = {"document": document_id}
        if from_position:
            condition = {"$and": [condition, {"position": {"$gte": from_position}}]}
        if position is not None:
            condition = {"$and": [condition, {"position": position}]}

        def delete(client: Any) -> None:
            collection = _existing_collection(client, index)
            if collection is not None:
                collection.delete(where=condition)

        self._send(delete)

    def drop_index(self, index: str) -> None:
        """Delete an index with all its vectors, if it exists."""
        from chromadb.errors import NotFoundError

        def delete(client: Any) -> None:
            try:
                client.delete_collection(index)
            except NotFoundError:
                logger.debug("index %s does not exist", index)

        self._send(delete)

    def has_index(self, index: str) -> bool:
        """Whether an index exists."""
        return self._send(lambda client: _existing_collection(client, index) is not None)

    def list_indexes(self, collection_id: str = "") -> list[str]:
        """Names of all indexes, or of those of one collection."""

        def names(client: Any) -> list[str]:
            found: list[str] = []
            while page := client.list_collections(limit=PAGE_SIZE, offset=len(found)):
                found += [collection.name for collection in page]
            return found

        return sorted(name for name in self._send(names) if name.startswith(collection_id))

    def count_vectors(self, index: str, document_id: str | None = None) -> int:
        """Number of vectors in an index, or of one document in it."""

        def number(client: Any) -> int:
            collection = _existing_collection(client, index)
            if collection is None:
                return 0
            if document_id is None:
                return int(collection.count())
            return len(collection.get(where={"document": document_id}, include=[])["ids"])

        return self._send(number)

    def count_by_document(self, index: str) -> dict[str, int]:
        """Number of vectors by document id."""

        def numbers(client: Any) -> dict[str, int]:
            return dict(Counter(id.partition(":")[0] for id in _all_ids(client, index)))

        return self._send(numbers)

    def read_vectors(self, index: str) -> Iterator[tuple[list[ChunkRef], bytes]]:
        """All vectors of an index, page by page: the references of the chunks, and their vectors as 32-bit floats in the same order.

        Vectors that are deleted meanwhile may be missing, and those that are added, but no others.
        """
        ids = self._send(lambda client: _all_ids(client, index))
        for start in range(0, len(ids), VECTOR_PAGE):
            page = ids[start : start + VECTOR_PAGE]
            refs, vectors = self._send(lambda client, page=page: _read_vectors(client, index, page))  # type: ignore[misc]
            if refs:
                yield refs, vectors

    def vectors_at(self, index: str, document_id: str, positions: Sequence[int]) -> dict[int, Sequence[float]]:
        """The vectors of a document's chunks at these positions, as far as they exist."""
        ids = [_vector_id((document_id, position)) for position in positions]

        def vectors(client: Any) -> dict[int, Sequence[float]]:
            collection = _existing_collection(client, index)
            found: dict[int, Sequence[float]] = {}
            for first in range(0, len(ids) if collection is not None else 0, BATCH):
                page = collection.get(ids=ids[first : first + BATCH], include=["embeddings"])
                pairs = zip(page["ids"], page["embeddings"], strict=True)
                found |= {int(id.rpartition(":")[2]): vector.tolist() for id, vector in pairs}
            return found

        return self._send(vectors) if ids else {}

    def _send(self, request: Callable[[Any], T]) -> T:
        """Send a request. Retry while a collection that was just created has no files yet."""
        pause = 0.05
        while True:
            try:
                return request(self._connected())
            except Exception as error:
                if "Nothing found on disk" in str(error) and pause < 2.0:
                    time.sleep(pause)
                    pause *= 2
                    continue
                if _is_outage(error):
                    if _is_timeout(error) and self._is_alive():
                        self._on_timeout()
                    kind = ReindexNeeded if "Error loading hnsw index" in str(error) else IndexUnavailable
                    raise kind(
                        f"The Chroma server at {without_login(self._url)} cannot be used: {type(error).__name__}: {error}"[:500],
                        outage=_is_away(error),
                    ) from error
                raise

    def _is_alive(self) -> bool:
        import httpx

        try:
            _heartbeat(self._url)
        except httpx.HTTPError:
            return False
        return True

    def _connected(self) -> Any:
        with self._lock:
            # A client created before a fork would share its connections with the parent.
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), _connect(self._url))
            return self._client[1]


def _connect(url: str) -> Any:
    with IMPORTS:
        import chromadb
        import httpx
        from chromadb.config import Settings

    # The client's constructor sends requests without a timeout, so it is created only once the server answers.
    _heartbeat(url)
    address = urlsplit(url)
    secure = address.scheme == "https"
    client = chromadb.HttpClient(
        host=address.hostname or "127.0.0.1",
        port=address.port or (443 if secure else 80),
        ssl=secure,
        headers=login_header(url),
        settings=Settings(anonymized_telemetry=False),
    )
    # The client has no timeout setting; without one, a server that hangs would block a worker forever.
    session = getattr(client, "_server")._session  # noqa: B009
    session.timeout = httpx.Timeout(RESPONSE_SECONDS, connect=CONNECT_SECONDS)
    return client


def login_header(url: str) -> dict[str, str]:
    """The header with the user and the password of the URL, if it has them."""
    address = urlsplit(url)
    if address.password is None:
        return {}
    login = f"{unquote(address.username or '')}:{unquote(address.password)}"
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _vector_id(ref: ChunkRef) -> str:
    document_id, position = ref
    return f"{document_id}:{position}"


def _hit(vector_id: str, score: float) -> VectorHit:
    document_id, _, position = vector_id.partition(":")
    return VectorHit(document_id, int(position), score)


def _exact_search(collection: Any, vector: Sequence[float], limit: int, ids: list[str] | None) -> list[VectorHit]:
    """The nearest chunks by comparison with every vector. All vectors have length 1."""
    with IMPORTS:
        import numpy

    found = collection.get(ids=ids, include=["embeddings"])
    if not found["ids"]:
        return []
    scores = numpy.asarray(found["embeddings"]) @ numpy.asarray(vector)
    best = numpy.argsort(-scores, kind="stable")[:limit]
    return [_hit(found["ids"][row], float(scores[row])) for row in best]


def _all_ids(client: Any, index: str) -> list[str]:
    """Ids of all vectors, in one request: while pages are read by their offset, a deletion would move others out of sight."""
    collection = _existing_collection(client, index)
    return [] if collection is None else list(collection.get(include=[])["ids"])


def _read_vectors(client: Any, index: str, ids: list[str]) -> tuple[list[ChunkRef], bytes]:
    with IMPORTS:
        import numpy

    collection = _existing_collection(client, index)
    page = {"ids": [], "embeddings": []} if collection is None else collection.get(ids=ids, include=["embeddings"])
    refs = [(document_id, int(position)) for document_id, _, position in (id.partition(":") for id in page["ids"])]
    return refs, numpy.asarray(page["embeddings"], dtype="<f4").tobytes()


def _collection(client: Any, index: str) -> Any:
    return client.get_or_create_collection(index, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)


def _existing_collection(client: Any, index: str) -> Any:
    from chromadb.errors import NotFoundError

    try:
        return client.get_collection(index, embedding_function=None)
    except NotFoundError:
        return None


def _heartbeat(url: str) -> None:
    import httpx

    httpx.get(f"{url.rstrip('/')}/api/v2/heartbeat", timeout=CONNECT_SECONDS, trust_env=False).raise_for_status()


def _is_timeout(error: Exception) -> bool:
    import httpx

    return isinstance(error, httpx.ReadTimeout)


def _is_away(error: Exception) -> bool:
    """Whether the server did not answer at all."""
    import httpx

    return isinstance(error, httpx.TransportError | ConnectionError) or "Could not connect" in str(error)


def _is_outage(error: Exception) -> bool:
    """Whether the server failed, rather than the request being wrong. Some faults of Chroma are a bare Exception."""
    import httpx
    from chromadb.errors import ChromaAuthError, ChromaError, InternalError, RateLimitError

    if isinstance(error, ChromaError):
        return isinstance(error, InternalError | RateLimitError | ChromaAuthError)
    return isinstance(error, httpx.HTTPError | ConnectionError) or type(error) is Exception or "Could not connect" in str(error)
