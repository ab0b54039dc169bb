"""The collections of a generation's search, and what a ``file_search`` of ``/v1`` reports about its hits."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.documents.store import Documents
from shared.openai.vector_stores import file_of_document, order_score

FILE_SEARCH = "file_search"


def collections_of(spec: Mapping[str, Any]) -> list[str]:
    """The collections that the first phase of a generation searches."""
    return list(spec["collections"]) if "collections" in spec else [spec["collection"]]


def describe_search(
    queries: Sequence[str], hits: Sequence[Mapping[str, Any]], documents: Documents, *, with_results: bool
) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """What clients receive about a search: its queries and, if they asked for them, its results; and the file of each document."""
    found = {document.id: document for document in documents.read_documents(list({hit["document_id"] for hit in hits}))}
    files: dict[str, dict[str, str]] = {}
    results = []
    for hit in hits:
        document = found.get(hit["document_id"])
        file_id, filename = file_of_document(hit["document_id"], hit["document"], document.file_id if document else "")
        files[hit["document_id"]] = {"file_id": file_id, "filename": filename}
        attributes = dict(document.metadata) if document else {}
        place = {"page": hit["page"], "start_index": hit["start"], "end_index": hit["end"]}
        result = {
            "file_id": file_id,
            "filename": filename,
            "score": order_score(hit),
            "text": hit["text"],
            "attributes": attributes,
        }
        results.append({**result, **place})
    return {"queries": list(queries), "results": results if with_results else None}, files
