"""The index of chunks: one Chroma server over HTTP, one of its collections for each of ours.

The ids of vectors are made from document id and position, so that putting a document twice overwrites it. What may be
shown (only documents that are ready) is not known here.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from shared.errors import IndexUnavailable

logger = logging.getLogger(__name__)

BATCH = 300
"""Vectors a request: large enough to be fast, and small enough that queries get their turn."""

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0

T = TypeVar("T")


class Placed(Protocol):
    """A chunk, as far as the index keeps it."""

    @property
    def position(self) -> int: ...
    @property
    def page(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A chunk that a query found; ``score`` is the cosine of the two vectors."""

    document_id: str
    position: int
    page: int
    start: int
    end: int
    text: str
    score: float


class Vectors:
    """A client of the Chroma server at ``url``; it connects at the first use in each process. Safe to share by threads.

    Every method raises IndexUnavailable when the server is away, does not answer in time, or is in trouble. ``on_silence`` is
    called when a request was not answered in time although the server lives.
    """

    def __init__(self, url: str, *, on_silence: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._on_silence = on_silence
        self._lock = threading.Lock()
        self._client: tuple[int, Any] | None = None

    def put(self, collection_id: str, document_id: str, chunks: Sequence[Placed], vectors: Sequence[Sequence[float]]) -> None:
        """Write the chunks of a document, over whatever stands at their positions."""

        def write(index: Any) -> None:
            for first in range(0, len(chunks), BATCH):
                batch = chunks[first : first + BATCH]
                index.upsert(
                    ids=[f"{document_id}:{chunk.position}" for chunk in batch],
                    embeddings=vectors[first : first + BATCH],
                    documents=[chunk.text for chunk in batch],
                    metadatas=[
                        {
                            "document": document_id,
                            "position": chunk.position,
                            "page": chunk.page,
                            "start": chunk.start,
                            "end": chunk.end,
                        }
                        for chunk in batch
                    ],
                )

        if chunks:
            self._ask(lambda client: write(_made(client, collection_id)))

    def query(self, collection_id: str, vector: Sequence[float], limit: int) -> list[Hit]:
        """The nearest chunks of a collection, best first; none when nothing was ever put into it."""

        def nearest(client: Any) -> Any:
            index = _found(client, collection_id)
            return None if index is None else index.query(query_embeddings=[vector], n_results=limit)

        answer = self._ask(nearest)
        if answer is None:
            return []
        rows = zip(answer["metadatas"][0], answer["documents"][0], answer["distances"][0], strict=True)
        return [
            Hit(
                document_id=place["document"],
                position=place["position"],
                page=place["page"],
                start=place["start"],
                end=place["end"],
                text=text,
                score=1.0 - distance,
            )
            for place, text, distance in rows
        ]

    def remove(self, collection_id: str, document_id: str, *, from_position: int = 0) -> None:
        """Remove the chunks of a document from a position on; nothing happens when there are none."""
        which: dict[str, Any] = {"document": document_id}
        if from_position:
            which = {"$and": [which, {"position": {"$gte": from_position}}]}

        def delete(client: Any) -> None:
            index = _found(client, collection_id)
            if index is not None:
                index.delete(where=which)

        self._ask(delete)

    def drop(self, collection_id: str) -> None:
        """Remove a collection with all its vectors; nothing happens when there is none."""
        from chromadb.errors import NotFoundError

        def delete(client: Any) -> None:
            try:
                client.delete_collection(collection_id)
            except NotFoundError:
                logger.debug("collection %s was never indexed, or is gone already", collection_id)

        self._ask(delete)

    def count(self, collection_id: str, document_id: str | None = None) -> int:
        """Vectors of a collection, or of one document in it."""

        def number(client: Any) -> int:
            index = _found(client, collection_id)
            if index is None:
                return 0
            return index.count() if document_id is None else len(index.get(where={"document": document_id}, include=[])["ids"])

        return self._ask(number)

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


def _made(client: Any, collection_id: str) -> Any:
    return client.get_or_create_collection(collection_id, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)


def _found(client: Any, collection_id: str) -> Any:
    from chromadb.errors import NotFoundError

    try:
        return client.get_collection(collection_id, embedding_function=None)
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
