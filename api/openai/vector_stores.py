"""Vector stores over HTTP: find, create and change them, and page through lists."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import request

from api.request_parsing import MAX_SHOWN, query_choice, query_integer
from api.services import owner, services
from shared.documents.collection_contents import CollectionContents
from shared.documents.models import COLLECTION_NAME, Collection
from shared.errors import InvalidValue
from shared.ids import COLLECTION, new_id
from shared.jobs.serialization import to_json
from shared.openai.requests.vector_stores import ChunkingStrategy, VectorStoreChanges, VectorStoreRequest
from shared.openai.vector_stores import find_collection, store_id, store_json

ORDERS = ("asc", "desc")
MAX_LISTED = 100

Entry = TypeVar("Entry")


def find_store(store: str, *, even_if_expired: bool = False) -> Collection:
    """The owner's vector store. Raises NotFound, and InvalidValue if it has expired."""
    return find_collection(services().documents, owner(), store, "vector_store_id", even_if_expired=even_if_expired)


def contents() -> CollectionContents:
    return CollectionContents(services().redis, services().documents)


def describe_store(collection: Collection) -> dict[str, Any]:
    """A vector store with the numbers of its files."""
    return store_json(collection, contents().summarize(collection.id), services().documents.now_ms())


def create_store(body: VectorStoreRequest) -> Collection:
    """Create a collection. Its name is that of the vector store if it can be, else the id of the vector store. Raises QuotaExceeded."""
    collection_id = new_id(COLLECTION)
    documents, model = services().documents, services().catalogue.embedding().name
    size, overlap = chunk_settings(body.chunking_strategy)
    settings: dict[str, str | int | None] = {
        "chunk_tokens": size,
        "chunk_overlap_tokens": overlap,
        "title": body.name or "",
        "description": body.description or "",
        "metadata": to_json(body.metadata or {}),
        "expires_days": body.expires_after.days if body.expires_after else None,
        "last_active_at": documents.now_ms(),
    }
    if body.name and COLLECTION_NAME.fullmatch(body.name):
        collection, created = documents.make_collection(owner(), body.name, model, settings, collection_id=collection_id)
        if created:
            return collection
    return documents.make_collection(owner(), store_id(collection_id), model, settings, collection_id=collection_id)[0]


def change_store(collection: Collection, body: VectorStoreChanges) -> Collection:
    """Change the fields that the request has. Raises NotFound if the collection was deleted meanwhile."""
    changes: dict[str, str | int | None] = {"last_active_at": services().documents.now_ms()}
    if "name" in body.model_fields_set:
        changes["title"] = body.name or ""
    if "metadata" in body.model_fields_set:
        changes["metadata"] = to_json(body.metadata or {})
    if "expires_after" in body.model_fields_set:
        changes["expires_days"] = body.expires_after.days if body.expires_after else None
    return services().documents.configure(collection.id, **changes)


def chunk_settings(strategy: ChunkingStrategy | None) -> tuple[int | None, int | None]:
    """Size and overlap of chunks; None is the server's setting."""
    if strategy is None or strategy.static is None:
        return None, None
    return strategy.static.max_chunk_size_tokens, strategy.static.chunk_overlap_tokens


def query_page(entries: Sequence[Entry], id_of: Callable[[Entry], str]) -> tuple[list[Entry], bool]:
    """The page of a list that the query asks for by ``limit``, ``order``, ``after`` and ``before``, and whether more follow.

    ``entries`` is the complete list, oldest first. Raises InvalidValue if the entry ``after`` or ``before`` does not exist.
    """
    limit = query_integer("limit", 20, 1, MAX_LISTED)
    ordered = list(entries) if query_choice("order", ORDERS) == "asc" else list(reversed(entries))
    ids = [id_of(entry) for entry in ordered]
    start, end = 0, len(ordered)
    if (after := request.args.get("after")) is not None:
        start = _position(ids, after, "after") + 1
    if (before := request.args.get("before")) is not None:
        end = _position(ids, before, "before")
        if after is None:
            # The entries next to the one that is named.
            return ordered[max(0, end - limit) : end], end > limit
    return ordered[start:end][:limit], end - start > limit


def _position(ids: Sequence[str], id: str, param: str) -> int:
    if id not in ids:
        raise InvalidValue(f"{param}: there is no {id[:MAX_SHOWN]!r} in this list", param=param)
    return ids.index(id)
