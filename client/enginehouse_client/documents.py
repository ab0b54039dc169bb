"""The calls on documents and collections that are there; how documents get in is in ``intake``."""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from enginehouse_client.effects import Emit, Operation, Stream
from enginehouse_client.jobs import JobCalls
from enginehouse_client.models import Collection, Document, Hit, Job


class DocumentCalls(JobCalls):
    """Documents are read by jobs, so their calls stand on those of jobs."""

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
    ) -> Operation[list[Hit]]:
        """The passages that answer a query, best first: by meaning, by words, or (unless told otherwise) by both. ``filter`` says
        of which documents and pages, ``threshold`` is the least score, ``neighbours`` how many chunks around each hit its
        ``raw`` has."""
        options = {"mode": mode, "filter": filter, "threshold": threshold, "neighbours": neighbours}
        body = {"query": query, "top_k": top_k, **{name: value for name, value in options.items() if value is not None}}
        path, timeout = f"/collections/{_name(collection)}/search", self.retry_policy.timeout + 30
        answer = yield from self._call("POST", path, json=body, timeout=timeout)
        told = answer.json()
        if answer.status == 202:
            job = yield from self.wait(told["id"])
            return [Hit.read(hit) for hit in job.completed()["hits"]]
        return [Hit.read(hit) for hit in told["data"]]

    def collections(self) -> Operation[list[Collection]]:
        """All collections, by name."""
        answer = yield from self._call("GET", "/collections")
        return [Collection.read(told) for told in answer.json()["data"]]

    def collection(self, name: str) -> Operation[Collection]:
        """One of them. Raises NotFound."""
        answer = yield from self._call("GET", f"/collections/{_name(name)}")
        return Collection.read(answer.json())

    def delete_collection(self, name: str) -> Operation[None]:
        """Forget a collection and all that is in it. Raises NotFound."""
        yield from self.remove(f"/collections/{_name(name)}")

    def reindex(
        self,
        collection: str,
        *,
        embedding_model: str | None = None,
        chunk_tokens: int | None = None,
        chunk_overlap_tokens: int | None = None,
    ) -> Operation[Job]:
        """Index a collection anew, with what is given or as before: the job that does it. The old index answers meanwhile. Raises
        NotFound, and Conflict while another such job runs."""
        options = {
            "embedding_model": embedding_model,
            "chunk_tokens": chunk_tokens,
            "chunk_overlap_tokens": chunk_overlap_tokens,
        }
        body = {name: value for name, value in options.items() if value is not None}
        # Sent twice, it would be refused for its own sake.
        answer = yield from self._call("POST", f"/collections/{_name(collection)}/reindex", json=body, repeatable=False)
        return Job.read(answer.json())

    def documents(self, collection: str) -> Stream[Document]:
        """The documents of a collection, newest first, page after page as they are asked for. Raises NotFound."""
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page(f"/collections/{_name(collection)}/documents", {}, more)
            for told in page:
                yield Emit(Document.read(told))

    def document(self, document: str) -> Operation[Document]:
        """One document. Raises NotFound."""
        answer = yield from self._call("GET", f"/documents/{_name(document)}")
        return Document.read(answer.json())

    def delete_document(self, document: str) -> Operation[None]:
        """Forget a document. Raises NotFound."""
        yield from self.remove(f"/documents/{_name(document)}")


def _id(job: str | Job) -> str:
    return job if isinstance(job, str) else job.id


def _name(name: str) -> str:
    return quote(name, safe="")
