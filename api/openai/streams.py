"""Streams of answers: events of jobs as chunks in OpenAI's form (server-sent events without names or ids).

The response starts immediately, even if no worker is free. While there is nothing to send, comment lines report what the job waits
for, so that clients and proxies keep the connection open. An error after the start is a line with ``error``.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import redis
from flask import Flask, Response, current_app

from api.caller import caller
from api.event_stream import follow_jobs, is_deleted, summary_events
from api.openai.errors import OutputLost
from api.openai.request_jobs import CONNECTION_CHECK_SECONDS, RequestJobs
from api.queue_state import queue_state
from api.services import services
from shared.errors import EnginehouseError, NotFound, RedisUnavailable, Unauthorized
from shared.jobs.event_streams import StreamEvent, stream_key
from shared.jobs.models import Job, Status
from shared.jobs.serialization import to_json
from shared.openai.job_errors import error_of_job
from shared.redis_connection import is_outage

COMMENT_SECONDS = 3.0
DONE = b"data: [DONE]\n\n"


class Chunks(Protocol):
    """The chunks of one call's streams. ``number`` is the index of a choice."""

    def start(self, number: int) -> list[dict[str, Any]]:
        """Chunks to send before the first piece of an answer."""

    def piece(self, number: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk of a ``delta`` event."""

    def end(self, number: int, job: Job) -> list[dict[str, Any]]:
        """Chunks to send after the last piece of an answer."""

    def usage(self, jobs: Sequence[Job]) -> dict[str, Any] | None:
        """The last chunk of the stream, if the client has asked for usage."""


class AnswerStream:
    """The stream of the jobs of one request."""

    def __init__(self, jobs: RequestJobs, make_chunks: Callable[[Job], Chunks]) -> None:
        context = services()
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        self._context = context
        self._is_valid = partial(context.authenticator.is_valid, caller())
        self._jobs = jobs
        self._first = [jobs.read(job) for job in jobs.ids]
        self._chunks = make_chunks(self._first[0])
        self._started: set[int] = set()
        self._sent: set[int] = set()
        self._ended: dict[int, Job] = {}
        self._has_started = False
        self._is_complete = False

    def response(self, release_slot: Callable[[], None]) -> Response:
        """The response. ``release_slot`` is called when it has been sent, or the client has disconnected."""
        response = Response(self._pieces(), content_type="text/event-stream; charset=utf-8")
        # These also run if the client disconnects before the first piece.
        response.call_on_close(release_slot)
        response.call_on_close(self.close)
        # Without this header nginx buffers events.
        response.headers["X-Accel-Buffering"] = "no"
        return response

    def close(self) -> None:
        """End the response. If it is incomplete, the client has disconnected, and the jobs are cancelled.

        Client libraries repeat a request only until its response has started, so after that no retry is expected.
        """
        if self._is_complete:
            self._jobs.end()
        else:
            self._jobs.handle_disconnect(retry_expected=not self._has_started)

    def _pieces(self) -> Iterator[bytes]:
        yield b": accepted\n\n"
        self._has_started = True
        try:
            yield from self._answer_pieces()
            if self._jobs.is_client_gone():
                return
            yield self._last_piece() + DONE
            self._is_complete = True
        except EnginehouseError as error:
            self._cancel()
            self._is_complete = True
            yield self._error_piece(error) + DONE
        except redis.RedisError as error:
            if not is_outage(error):
                raise
            # The jobs run on: without Redis they cannot be cancelled either.
            yield self._error_piece(RedisUnavailable("Redis is unavailable, so the answer cannot be followed.")) + DONE

    def _last_piece(self) -> bytes:
        usage = self._chunks.usage([self._ended[number] for number in range(len(self._jobs.ids))])
        return b"" if usage is None else self._line(usage)

    def _error_piece(self, error: EnginehouseError) -> bytes:
        return self._line({"error": error.as_json()})

    def _cancel(self) -> None:
        self._jobs.cancel()

    def _answer_pieces(self) -> Iterator[bytes]:
        """All chunks but the last one; ends early if the client has disconnected. Raises the error of a job that did not complete."""
        sent_at = time.monotonic()
        for events in self._events():
            if not self._is_valid():
                raise Unauthorized("This API key was revoked.", code="key_unknown", param="Authorization")
            lines = [self._line(chunk) for number, event in events for chunk in self._event_chunks(number, event)]
            now = time.monotonic()
            if lines:
                sent_at = now
                yield b"".join(lines)
                continue
            if self._jobs.is_client_gone():
                return
            if now >= sent_at + COMMENT_SECONDS:
                sent_at = now
                yield self._comment()

    def _events(self) -> Iterable[list[tuple[int, StreamEvent]]]:
        context = self._context
        # The event stream of a job that a retry has taken over may have expired.
        gone = {
            number for number, job in enumerate(self._first) if job.status.final and not context.redis.exists(stream_key(job.id))
        }
        yield [(number, event) for number in gone for event in summary_events(self._first[number], 0)]
        numbers = [number for number in range(len(self._first)) if number not in gone]
        starts = [(self._first[number].id, 0) for number in numbers]
        for events in follow_jobs(context.redis, context.follower, starts, CONNECTION_CHECK_SECONDS):
            yield [(numbers[number], event) for number, event in events]

    def _event_chunks(self, number: int, event: StreamEvent) -> Iterator[dict[str, Any]]:
        if event.type == "delta":
            yield from self._start(number)
            self._sent.add(number)
            yield self._chunks.piece(number, event.data)
        elif event.type == "restart" and number in self._sent:
            raise OutputLost(
                f"The worker of job {self._jobs.ids[number]} died, and its answer could not be continued. Send the request again."
            )
        elif event.type == "ended":
            job = self._jobs.read(self._jobs.ids[number])
            if job.status is not Status.COMPLETED:
                raise error_of_job(job)
            self._ended[number] = job
            yield from self._start(number)
            yield from self._chunks.end(number, job)

    def _start(self, number: int) -> list[dict[str, Any]]:
        if number in self._started:
            return []
        self._started.add(number)
        return self._chunks.start(number)

    def _line(self, value: Mapping[str, Any]) -> bytes:
        return f"data: {to_json(value)}\n\n".encode()

    def _comment(self) -> bytes:
        """A comment with the position of the first job that has not ended, and how long it will probably wait."""
        waiting = next((job for number, job in enumerate(self._jobs.ids) if number not in self._ended), self._jobs.ids[0])
        job = self._context.queries.get_job(waiting)
        if job is None and is_deleted(self._context.queries, waiting):
            raise NotFound(f"Job {waiting} was deleted while this request waited for it.", code="job_not_found")
        if job is None or job.status is not Status.QUEUED:
            return b": running\n\n"
        with self._app.app_context():
            state = queue_state(job)
        position, estimate = state["queue_position"], state["estimated_wait"]
        place = f" {position}" if position else ""
        about = f", about {estimate['seconds']:.0f} s" if estimate else ""
        return f": queued{place}{about}, waiting for {state['waiting_for'] or 'worker'}\n\n".encode()
