"""The vectors of chunks: one Chroma server over HTTP, one of its collections for each index.

The ids of vectors are made from document id and position, so that putting a document twice overwrites it. They are all that
the server knows of a chunk: its text is in ``shared/documents/text_index.py``, since with it the server takes less than half
as many vectors a second and three times the disk. What may be shown (only documents that are ready) is not known here.
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from shared.errors import IndexUnavailable

logger = logging.getLogger(__name__)

BATCH = 300
"""Vectors a request: large enough to be fast, and small enough that queries get their turn."""

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0

MOST_COMPARED = 5_000
"""Vectors that are compared one by one where the search of the graph lost some: about 0.3 s."""

LISTED = 5_000

T = TypeVar("T")


@dataclass(frozen=True)
class VectorHit:
    """A chunk that a query found, by its place; ``score`` is the cosine of the two vectors."""

    document_id: str
    position: int
    score: float

    @property
    def chunk_ref(self) -> tuple[str, int]:
        return self.document_id, self.position


class VectorStore:
    """A client of the Chroma server at ``url``; it connects at the first use in each process. Safe to share by threads.

    Every method raises IndexUnavailable when the server is away, does not answer in time, or is in trouble. ``on_silence`` is
    called when a request was not answered in time although the server lives.
    """

    def __init__(self, url: str, *, on_silence: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._on_silence = on_silence
        self._lock = threading.Lock()
        self._client: tuple[int, Any] | None = None

    def put_vectors(self, index: str, document_id: str, positions: Sequence[int], vectors: Sequence[Sequence[float]]) -> None:
        """Write the vectors of chunks of a document, over whatever stands at their positions."""

        def write(target: Any) -> None:
            for first in range(0, len(positions), BATCH):
                batch = positions[first : first + BATCH]
                target.upsert(
                    ids=[_name((document_id, position)) for position in batch],
                    embeddings=vectors[first : first + BATCH],
                    metadatas=[{"document": document_id, "position": position} for position in batch],
                )

        if positions:
            self._ask(lambda client: write(_made(client, index)))

    def nearest_chunks(
        self, index: str, vector: Sequence[float], limit: int, within: Sequence[tuple[str, int]] | None = None
    ) -> list[VectorHit]:
        """The nearest chunks, best first, of all or of those at the places ``within``; none when nothing was ever put there."""
        if within is not None and not within:
            return []
        names = None if within is None else [_name(place) for place in within]

        def nearest(client: Any) -> list[VectorHit]:
            source = _found(client, index)
            if source is None:
                return []
            there = names
            try:
                answer = source.query(query_embeddings=[vector], n_results=limit, ids=there, include=["distances"])
            except Exception as error:
                # A single name that the server does not have (any more) makes it refuse them all.
                if there is None or "Error finding id" not in str(error):
                    raise
                there = source.get(ids=there, include=[])["ids"]
                if not there:
                    return []
                answer = source.query(query_embeddings=[vector], n_results=limit, ids=there, include=["distances"])
            hits = [_hit(name, 1.0 - distance) for name, distance in zip(answer["ids"][0], answer["distances"][0], strict=True)]
            if len(hits) >= limit:
                return hits
            count = source.count() if there is None else len(there)
            # The graph that is searched may not lead to every vector: of many that are alike it loses most, of those left
            # after a deletion some. A small index is then compared as a whole.
            return _compared(source, vector, limit, there) if len(hits) < count <= MOST_COMPARED else hits

        return self._ask(nearest)

    def remove_vectors(self, index: str, document_id: str, *, position: int | None = None, from_position: int = 0) -> None:
        """Remove the chunks of a document, one of them, or those from a position on; nothing happens when there are none."""
        which: dict[str, Any] = {"document": document_id}
        if from_position:
            which = {"$and": [which, {"position": {"$gte": from_position}}]}
        if position is not None:
            which = {"$and": [which, {"position": position}]}

        def delete(client: Any) -> None:
            source = _found(client, index)
            if source is not None:
                source.delete(where=which)

        self._ask(delete)

    def drop_index(self, index: str) -> None:
        """Remove an index with all its vectors; nothing happens when there is none."""
        from chromadb.errors import NotFoundError

        def delete(client: Any) -> None:
            try:
                client.delete_collection(index)
            except NotFoundError:
                logger.debug("index %s was never made, or is gone already", index)

        self._ask(delete)

    def list_indexes(self, collection_id: str = "") -> list[str]:
        """The names of all indexes, or of those of one collection."""

        def names(client: Any) -> list[str]:
            found: list[str] = []
            while page := client.list_collections(limit=LISTED, offset=len(found)):
                found += [source.name for source in page]
            return found

        return sorted(name for name in self._ask(names) if name.startswith(collection_id))

    def count_vectors(self, index: str, document_id: str | None = None) -> int:
        """Vectors of an index, or of one document in it."""

        def number(client: Any) -> int:
            source = _found(client, index)
            if source is None:
                return 0
            return source.count() if document_id is None else len(source.get(where={"document": document_id}, include=[])["ids"])

        return self._ask(number)

    def count_by_document(self, index: str) -> dict[str, int]:
        """Document id -> number of its vectors, of all documents."""

        def numbers(client: Any) -> dict[str, int]:
            source, found, seen = _found(client, index), Counter[str](), 0
            while source is not None and (page := source.get(include=[], limit=LISTED, offset=seen)["ids"]):
                found.update(name.partition(":")[0] for name in page)
                seen += len(page)
            return dict(found)

        return self._ask(numbers)

    def _ask(self, request: Callable[[Any], T]) -> T:
        """Send a request; again when it meets the moment in which a new collection's files do not exist yet."""
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
                    if _is_silence(error) and self._lives():
                        self._on_silence()
                    raise IndexUnavailable(
                        f"The index at {self._url} cannot be used: {type(error).__name__}: {error}"[:500]
                    ) from error
                raise

    def _lives(self) -> bool:
        import httpx

        try:
            _heartbeat(self._url)
        except httpx.HTTPError:
            return False
        return True

    def _connected(self) -> Any:
        with self._lock:
            # A client made before a fork would share its connections with the parent.
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), _connect(self._url))
            return self._client[1]


def _connect(url: str) -> Any:
    import chromadb
    import httpx
    from chromadb.config import Settings

    # Chroma's client asks without a time limit while it is being made, so it is made only for a server that answers.
    _heartbeat(url)
    address = urlsplit(url)
    secure = address.scheme == "https"
    client = chromadb.HttpClient(
        host=address.hostname or "127.0.0.1",
        port=address.port or (443 if secure else 80),
        ssl=secure,
        settings=Settings(anonymized_telemetry=False),
    )
    # There is no setting for it: a server that hangs would hold a worker for ever.
    session = getattr(client, "_server")._session  # noqa: B009
    session.timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    return client


def _name(place: tuple[str, int]) -> str:
    document_id, position = place
    return f"{document_id}:{position}"


def _hit(name: str, score: float) -> VectorHit:
    document_id, _, position = name.partition(":")
    return VectorHit(document_id, int(position), score)


def _compared(source: Any, vector: Sequence[float], limit: int, names: list[str] | None) -> list[VectorHit]:
    """The nearest by comparing with each one. All vectors have length 1."""
    import numpy

    found = source.get(ids=names, include=["embeddings"])
    if not found["ids"]:
        return []
    scores = numpy.asarray(found["embeddings"]) @ numpy.asarray(vector)
    best = numpy.argsort(-scores, kind="stable")[:limit]
    return [_hit(found["ids"][place], float(scores[place])) for place in best]


def _made(client: Any, index: str) -> Any:
    return client.get_or_create_collection(index, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)


def _found(client: Any, index: str) -> Any:
    from chromadb.errors import NotFoundError

    try:
        return client.get_collection(index, embedding_function=None)
    except NotFoundError:
        return None


def _heartbeat(url: str) -> None:
    import httpx

    httpx.get(f"{url.rstrip('/')}/api/v2/heartbeat", timeout=CONNECT_SECONDS, trust_env=False).raise_for_status()


def _is_silence(error: Exception) -> bool:
    import httpx

    return isinstance(error, httpx.ReadTimeout)


def _is_outage(error: Exception) -> bool:
    """Whether the server is in trouble rather than the request wrong; for some of its faults Chroma raises a bare Exception."""
    import httpx
    from chromadb.errors import ChromaError, InternalError, RateLimitError

    if isinstance(error, ChromaError):
        return isinstance(error, InternalError | RateLimitError)
    return isinstance(error, httpx.HTTPError | ConnectionError) or type(error) is Exception or "Could not connect" in str(error)
