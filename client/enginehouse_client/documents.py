"""The calls on documents and collections, and the ingest of many files."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from enginehouse_client.effects import Emit, Operation, Request, Stream
from enginehouse_client.exchange import exchange
from enginehouse_client.files import Given, Source, portions, sources
from enginehouse_client.jobs import JobCalls
from enginehouse_client.records import Collection, Document, Hit, Ingestion, Job, Progress, Rejected, Sent

# Whoever shows progress wants to see it move.
LOOK_SECONDS = 2.0
UNDER_WAY = ("uploaded", "parsing", "chunking", "embedding", "indexing")


class DocumentCalls(JobCalls):
    """Documents are read by jobs, so their calls stand on those of jobs."""

    def upload(self, collection: str, file: Given, *, wait: bool = True) -> Operation[Document]:
        """Put one file into a collection, which is made when there is none: the document, once it was read unless ``wait``
        is false. Raises ValueError when it is not one file. A document that cannot be read is no error: look at its status.
        """
        document, *_ = yield from self.send(collection, file)
        if wait and document.status in UNDER_WAY:
            yield from self.wait(document.job_id)
            document = yield from self.document(document.id)
        return document

    def send(self, collection: str, file: Given, *, on_sent: Callable[[Sent], None] | None = None) -> Operation[list[Document]]:
        """Send one file and wait for nothing: its documents, which are several only when it holds several. ``on_sent`` is told
        how far the sending has come. Raises ValueError when it is not one file, and OSError."""
        files = list(sources(file))
        if len(files) != 1:
            raise ValueError(f"one file is sent at a time, not {len(files)}; ingest takes many")
        size = files[0].size
        told = None if on_sent is None else lambda sent: on_sent(Sent(sent, size))
        _, documents = yield from self._take(collection, files, told)
        return documents

    def ingest(
        self,
        collection: str,
        files: Given | Iterable[Given],
        *,
        wait: bool = True,
        within: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Operation[Ingestion]:
        """Put files and whole folders into a collection, in batches, and wait until all were read.

        ``on_progress`` is told each time something has changed. Raises Timeout when a batch has not ended ``within`` so many
        seconds, FileNotFoundError and OSError. A file that cannot be read is no error: ``rejected`` lists them.
        """
        found = list(sources(files))
        tally = _Tally(len(found), on_progress)
        documents: dict[str, Document] = {}
        batches: list[Job] = []
        elsewhere: list[Document] = []
        for portion in portions(found):
            batch, taken = yield from self._take(collection, portion)
            batches.append(batch)
            documents |= {document.id: document for document in taken}
            if (batch.counts or {}).get("total", 0) < len(taken):
                # Some were there already, or are under way in another batch.
                elsewhere += [document for document in taken if document.status in UNDER_WAY]
            tally.uploaded(batch, len(taken))
        rejected: dict[str, Rejected] = {}
        if wait:
            deadline = None if within is None else self.patience.clock() + within
            for batch in batches:
                yield from self.wait(batch, within=self._left(deadline), every=LOOK_SECONDS, on_look=tally.looked)
                rejected |= yield from self._rejections(batch.id, documents.values())
            for document in elsewhere:
                job = yield from self.wait(document.job_id, within=self._left(deadline))
                if job.status != "completed":
                    rejected[document.id] = _rejection(document, job)
        return Ingestion(list(documents.values()), [batch.id for batch in batches], list(rejected.values()))

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
        path, timeout = f"/collections/{_name(collection)}/search", self.patience.timeout + 30
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

    def _take(
        self, collection: str, files: Sequence[Source], on_sent: Callable[[int], None] | None = None
    ) -> Operation[tuple[Job, list[Document]]]:
        request = Request(
            method="POST",
            path=f"/collections/{_name(collection)}/documents",
            headers={"Idempotency-Key": str(uuid.uuid4())},
            files=files,
            on_sent=on_sent,
            timeout=self.patience.timeout + 60,
        )
        answer = yield from exchange(request, self.patience)
        told = answer.json()
        return Job.read(told["batch"]), [Document.read(document) for document in told["data"]]

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(0.0, deadline - self.patience.clock())

    def _rejections(self, batch: str, documents: Iterable[Document]) -> Operation[dict[str, Rejected]]:
        by_job = {document.job_id: document for document in documents}
        rejected: dict[str, Rejected] = {}
        for status in ("failed", "cancelled", "expired"):
            more: str | None = ""
            while more is not None:
                page, more = yield from self._page("/jobs", {"batch": batch, "status": status}, more)
                for job in map(Job.read, page):
                    if job.id in by_job:
                        rejected[by_job[job.id].id] = _rejection(by_job[job.id], job)
        return rejected


class _Tally:
    """Counts files over all batches, and tells when a number has changed."""

    def __init__(self, files: int, on_progress: Callable[[Progress], None] | None) -> None:
        self._files = files
        self._on_progress = on_progress
        self._uploaded = 0
        self._in_no_batch = 0
        self._batches: dict[str, Mapping[str, int]] = {}
        self._told: Progress | None = None

    def uploaded(self, batch: Job, files: int) -> None:
        self._uploaded += files
        self._in_no_batch += files - (batch.counts or {}).get("total", files)
        self.looked(batch)

    def looked(self, batch: Job) -> None:
        self._batches[batch.id] = batch.counts or {}
        completed, *otherwise = (
            sum(counts.get(name, 0) for counts in self._batches.values())
            for name in ("completed", "failed", "cancelled", "expired")
        )
        failed = sum(otherwise)
        now = Progress(self._files, self._uploaded, self._in_no_batch + completed + failed, failed)
        if self._on_progress is not None and now != self._told:
            self._on_progress(now)
        self._told = now


def _rejection(document: Document, job: Job) -> Rejected:
    error = job.error or {"code": job.status, "message": f"its job is {job.status}"}
    return Rejected(document, str(error["code"]), str(error["message"]))


def _name(name: str) -> str:
    return quote(name, safe="")
