"""Operations on request batches: the requests of a file in OpenAI's format, each of which runs as a job."""

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from enginehouse_client.effects import Emit, Open, Operation, Receive, Request, Response, Sleep, Stream
from enginehouse_client.errors import ConnectionFailed, RateLimited, Timeout, Unavailable
from enginehouse_client.files import FileInput, Source, sources
from enginehouse_client.jobs import JobCalls
from enginehouse_client.models import RequestBatch
from enginehouse_client.retry import error_from_response, send_with_retries

POLL_SECONDS = 1.0
# A file is read by the server while it arrives, and flushed to its disk at the end.
UPLOAD_SECONDS = 120.0
LONGEST_LINE = 64 * 1024 * 1024


class RequestBatchCalls(JobCalls):
    """A request batch answers each request of its file once. The other kind of batch counts the jobs of uploads."""

    def submit_requests(
        self,
        file: FileInput,
        *,
        endpoint: str | None = None,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        not_before: float | str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> Operation[RequestBatch]:
        """Upload a file of requests, one JSON object per line, and run them. ``endpoint`` is by default the ``url`` of the first line.
        The batch starts at ``not_before``: seconds from now, or a time in RFC 3339. Of your jobs with the same ``concurrency_key``, at most
        ``concurrency_limit`` (1) run at once; requests of the file with a key of their own keep it.

        Raises ValueError if there is not exactly one file or the endpoint cannot be found, OSError, and what the server refuses. Lines
        are checked afterwards: a batch with an invalid one ends as ``failed``.
        """
        found = list(sources(file))
        if len(found) != 1:
            raise ValueError(f"expected one file, got {len(found)}")
        url = endpoint or _first_url(found[0])
        upload = Request(
            method="POST",
            path="/v1/files",
            files=found,
            form={"purpose": "batch"},
            on_sent=on_sent,
            timeout=self.retry_policy.timeout + UPLOAD_SECONDS,
        )
        uploaded = yield from send_with_retries(upload, self.retry_policy)
        body = {
            "input_file_id": uploaded.json()["id"],
            "endpoint": url,
            "completion_window": completion_window,
            "metadata": metadata,
            "not_before": not_before,
            "concurrency_key": concurrency_key,
            "concurrency_limit": concurrency_limit,
        }
        request = Request(
            method="POST",
            path="/v1/batches",
            headers={"Idempotency-Key": str(uuid.uuid4())},
            json=body,
            timeout=self.retry_policy.timeout,
        )
        response = yield from send_with_retries(request, self.retry_policy)
        return RequestBatch.from_json(response.json())

    def request_batch(self, batch: str | RequestBatch) -> Operation[RequestBatch]:
        """Return the current state of a request batch. Raises NotFound."""
        response = yield from self._call("GET", f"/v1/batches/{_id(batch)}")
        return RequestBatch.from_json(response.json())

    def request_batches(self) -> Stream[RequestBatch]:
        """Iterate over request batches, newest first, fetching pages as needed."""
        query, has_more = {"limit": "100"}, True
        while has_more:
            response = yield from self._call("GET", "/v1/batches", query)
            page = response.json()
            for item in page["data"]:
                yield Emit(RequestBatch.from_json(item))
            query, has_more = {"limit": "100", "after": page["last_id"]}, page["has_more"]

    def wait_for_requests(
        self,
        batch: str | RequestBatch,
        *,
        timeout: float | None = None,
        on_poll: Callable[[RequestBatch], None] | None = None,
    ) -> Operation[RequestBatch]:
        """Wait for the end of a request batch, in whatever state, and return it. ``on_poll`` receives it about once a second.

        Raises Timeout after ``timeout`` seconds, and NotFound.
        """
        clock = self.retry_policy.clock
        deadline = None if timeout is None else clock() + timeout
        while True:
            found = yield from self.request_batch(batch)
            if on_poll is not None:
                on_poll(found)
            if found.ended:
                return found
            if deadline is not None and clock() >= deadline:
                raise Timeout(f"batch {found.id} has not ended within {timeout:g} s (status {found.status})")
            yield Sleep(POLL_SECONDS if deadline is None else min(POLL_SECONDS, max(0.0, deadline - clock())))

    def cancel_requests(self, batch: str | RequestBatch) -> Operation[RequestBatch]:
        """Cancel a request batch. Requests that have ended keep their answers. Raises Conflict if it has ended."""
        response = yield from self._call("POST", f"/v1/batches/{_id(batch)}/cancel")
        return RequestBatch.from_json(response.json())

    def request_results(self, batch: str | RequestBatch) -> Stream[Mapping[str, Any]]:
        """Iterate over the lines of an ended request batch: first those with answers, then those with errors. Each has ``custom_id``,
        ``response`` and ``error``. There are none before its end."""
        found = yield from self.request_batch(batch)
        for file in (found.output_file_id, found.error_file_id):
            if file is not None:
                yield from self._lines(f"/v1/files/{_id(file)}/content")

    def _lines(self, path: str) -> Stream[Mapping[str, Any]]:
        """The JSON objects in a file. A broken connection is opened again, and what was received before is skipped."""
        rest, received, failures = b"", 0, 0
        while True:
            error: ConnectionFailed | RateLimited | Unavailable
            try:
                response: Response = yield Open(Request(method="GET", path=path, timeout=self.retry_policy.timeout))
                if response.status >= 400:
                    raise error_from_response(response)
                skipped = 0
                while piece := (yield Receive()):
                    fresh = piece[max(0, received - skipped) :]
                    skipped += len(piece)
                    received = max(received, skipped)
                    failures = 0 if fresh else failures
                    *lines, rest = (rest + fresh).split(b"\n")
                    for line in filter(None, lines):
                        yield Emit(json.loads(line))
                return
            except (ConnectionFailed, RateLimited, Unavailable) as broken:
                error = broken
            failures += 1
            if failures > self.retry_policy.retries:
                raise error
            yield Sleep(self.retry_policy.delay(failures, getattr(error, "retry_after", None)))


def _first_url(source: Source) -> str:
    """The ``url`` of the first request of a file."""
    with source.open() as stream:
        for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
            if line.strip():
                try:
                    return str(json.loads(line.decode("utf-8-sig"))["url"])
                except (ValueError, KeyError, TypeError):
                    break
    raise ValueError(f"{source.name}: the first line has no url; name the endpoint, such as /v1/chat/completions")


def _id(batch: str | RequestBatch) -> str:
    return quote(batch if isinstance(batch, str) else batch.id, safe="")
