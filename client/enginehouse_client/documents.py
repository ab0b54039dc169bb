"""Operations on documents and collections; ``uploads`` adds documents."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from enginehouse_client.effects import Emit, Operation, Stream
from enginehouse_client.jobs import JobCalls
from enginehouse_client.models import Collection, Document, DocumentCounts, Job, PageText, SearchHits


class DocumentCalls(JobCalls):
    """Search, list, reindex, rename, move and delete."""

    def search(
        self,
        collection: str,
        query: str,
        *,
        top_k: int = 5,
        mode: Literal["vector", "keyword", "hybrid"] | None = None,
        filter: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        neighbours: int | None = None,
        rerank: bool | str | None = None,
        explain: bool = False,
    ) -> Operation[SearchHits]:
        """Search a collection; the best passages come first. ``mode`` is ``vector``, ``keyword`` or (by default) ``hybrid``.
        ``filter`` restricts documents and pages, ``threshold`` is the minimum score, and ``neighbours`` adds that many chunks
        around each hit to its ``raw``. ``rerank`` is the name of a reranker, True for the default one, or False for none. ``explain``
        fills ``explain`` of the hits and of their list. Raises NotFound."""
        options = {"mode": mode, "filter": filter, "threshold": threshold, "neighbours": neighbours, "rerank": rerank}
        options["explain"] = explain or None
        body = {"query": query, "top_k": top_k, **{name: value for name, value in options.items() if value is not None}}
        path, timeout = f"/collections/{_name(collection)}/search", self.retry_policy.timeout + 30
        response = yield from self._call("POST", path, json=body, timeout=timeout)
        payload = response.json()
        if response.status == 202:
            job = yield from self.wait(payload["id"])
            result = job.completed()
            return SearchHits(result["hits"], warnings=result.get("warnings", ()), explain=result.get("explain"))
        return SearchHits(payload["data"], warnings=payload["warnings"], explain=payload.get("explain"))

    def collections(self) -> Operation[list[Collection]]:
        """List all collections by name."""
        response = yield from self._call("GET", "/collections")
        return [Collection.from_json(item) for item in response.json()["data"]]

    def collection(self, name: str) -> Operation[Collection]:
        """Return one collection. Raises NotFound."""
        response = yield from self._call("GET", f"/collections/{_name(name)}")
        return Collection.from_json(response.json())

    def create_collection(
        self,
        name: str,
        *,
        embedding_model: str | None = None,
        chunk_tokens: int | None = None,
        chunk_overlap_tokens: int | None = None,
        ocr_languages: Sequence[str] | None = None,
    ) -> Operation[Collection]:
        """Create a collection with settings of its own; an upload creates one with those of the server. Raises Conflict if it exists."""
        options = {
            "embedding_model": embedding_model,
            "chunk_tokens": chunk_tokens,
            "chunk_overlap_tokens": chunk_overlap_tokens,
            "ocr_languages": None if ocr_languages is None else list(ocr_languages),
        }
        body = {"name": name, **{option: value for option, value in options.items() if value is not None}}
        response = yield from self._call("POST", "/collections", json=body, repeatable=False)
        return Collection.from_json(response.json())

    def change_collection(self, name: str, settings: Mapping[str, int | Sequence[str] | None]) -> Operation[Collection]:
        """Change ``chunk_tokens``, ``chunk_overlap_tokens`` or ``ocr_languages`` for documents that are ingested later; None stands for the
        server's setting. Raises NotFound."""
        response = yield from self._call("PATCH", f"/collections/{_name(name)}", json=dict(settings))
        return Collection.from_json(response.json())

    def delete_collection(self, name: str, *, permanent: bool = False) -> Operation[None]:
        """Delete a collection with all its documents. It can be restored for a minute, unless ``permanent``. Raises NotFound."""
        yield from self.remove(f"/collections/{_name(name)}{'?permanent=true' if permanent else ''}")

    def restore_collection(self, name: str) -> Operation[Collection]:
        """Restore a deleted collection with its documents and return it. Raises NotFound once its minute is over, and Conflict if
        another collection has its name since."""
        response = yield from self._call("POST", f"/collections/{_name(name)}/restore")
        return Collection.from_json(response.json())

    def reindex(
        self,
        collection: str,
        *,
        embedding_model: str | None = None,
        chunk_tokens: int | None = None,
        chunk_overlap_tokens: int | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
    ) -> Operation[Job]:
        """Rebuild the index of a collection, with the given settings or the current ones, and return the job. The old index
        answers in the meantime. Of your jobs with the same ``concurrency_key``, at most ``concurrency_limit`` run at once. Raises
        NotFound, and Conflict while another reindex job runs."""
        options = {
            "embedding_model": embedding_model,
            "chunk_tokens": chunk_tokens,
            "chunk_overlap_tokens": chunk_overlap_tokens,
            "concurrency_key": concurrency_key,
            "concurrency_limit": concurrency_limit,
        }
        body = {name: value for name, value in options.items() if value is not None}
        # A repeated request would be rejected because of the first one.
        response = yield from self._call("POST", f"/collections/{_name(collection)}/reindex", json=body, repeatable=False)
        return Job.from_json(response.json())

    def documents(self, collection: str, *, status: str | None = None) -> Stream[Document]:
        """Iterate over the documents of a collection, or over those with one status, newest first, fetching pages as needed. Raises
        NotFound."""
        query = {} if status is None else {"status": status}
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page(f"/collections/{_name(collection)}/documents", query, more)
            for item in page:
                yield Emit(Document.from_json(item))

    def document_counts(self, collection: str) -> Operation[DocumentCounts]:
        """Count the documents of a collection by status. Raises NotFound."""
        response = yield from self._call("GET", f"/collections/{_name(collection)}/documents/counts")
        return DocumentCounts.from_json(response.json())

    def document(self, document: str) -> Operation[Document]:
        """Return one document. Raises NotFound."""
        response = yield from self._call("GET", f"/documents/{_name(document)}")
        return Document.from_json(response.json())

    def rename_document(self, document: str, name: str) -> Operation[Document]:
        """Give a document another file name and return it. Raises NotFound, and Conflict if another document of the collection has the
        name or this one is being read."""
        response = yield from self._call("PATCH", f"/documents/{_name(document)}", json={"name": name})
        return Document.from_json(response.json())

    def move_document(
        self, document: str, collection: str, *, concurrency_key: str | None = None, concurrency_limit: int | None = None
    ) -> Operation[Job]:
        """Move a document into another collection that exists, and return the job. Its id, file and pages stay. Of your jobs with the
        same ``concurrency_key``, at most ``concurrency_limit`` run at once. Raises NotFound, and Conflict if the document is being
        read; the job fails if the collection has its name or its bytes."""
        path = f"/documents/{_name(document)}/move"
        options = {"collection": collection, "concurrency_key": concurrency_key, "concurrency_limit": concurrency_limit}
        body = {name: value for name, value in options.items() if value is not None}
        # A repeated request would be rejected because of the first one.
        response = yield from self._call("POST", path, json=body, repeatable=False)
        return Job.from_json(response.json())

    def delete_document(self, document: str, *, permanent: bool = False) -> Operation[None]:
        """Delete a document. It can be restored for a minute, unless ``permanent``. Raises NotFound."""
        yield from self.remove(f"/documents/{_name(document)}{'?permanent=true' if permanent else ''}")

    def restore_document(self, document: str) -> Operation[Document]:
        """Restore a deleted document and return it. Raises NotFound once its minute is over, and Conflict if another document has
        its name or its bytes since."""
        response = yield from self._call("POST", f"/documents/{_name(document)}/restore")
        return Document.from_json(response.json())

    def document_file(self, document: str) -> Operation[bytes]:
        """Return the bytes that were uploaded. Raises NotFound, also if the server has deleted the file as it could not be read."""
        response = yield from self._call("GET", f"/documents/{_name(document)}/file")
        return response.body

    def page_image(
        self, document: str, page: int, *, width: int | None = None, start: int | None = None, end: int | None = None
    ) -> Operation[bytes]:
        """Return the picture of a page of a PDF, as PNG, in which the characters from ``start`` to ``end`` are marked, such as those of
        a passage. Raises NotFound, and Conflict if the page cannot be drawn."""
        options = {"width": width, "start": start, "end": end}
        query = {name: str(value) for name, value in options.items() if value is not None}
        path, timeout = f"/documents/{_name(document)}/pages/{page}.png", self.retry_policy.timeout + 30
        response = yield from self._call("GET", path, query, timeout=timeout)
        return response.body

    def page_text(self, document: str, page: int, *, start: int | None = None, end: int | None = None) -> Operation[PageText]:
        """Return the text of a page, with the boxes of its lines or of those from ``start`` to ``end``. Raises NotFound."""
        query = {name: str(value) for name, value in {"start": start, "end": end}.items() if value is not None}
        path, timeout = f"/documents/{_name(document)}/pages/{page}/text", self.retry_policy.timeout + 30
        response = yield from self._call("GET", path, query, timeout=timeout)
        return PageText.from_json(response.json())


def _name(name: str) -> str:
    return quote(name, safe="")
