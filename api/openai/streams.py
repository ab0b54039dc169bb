"""Streams of answers: events of jobs as chunks in OpenAI's form (server-sent events without names or ids).

The response starts at once, whether or not a worker is free. While nothing can be sent, comment lines say what the job waits for,
so that neither clients nor proxies take the connection for dead. An error after the start is a line with ``error``.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import redis
from flask import Flask, Response, current_app

from api.caller import caller
from api.event_stream import follow_jobs, is_deleted, summary_events
from api.openai.errors import OutputLost, error_of_job
from api.openai.request_jobs import LOOK_SECONDS, RequestJobs
from api.queue_state import queue_state
from api.services import services
from shared.errors import EnginehouseError, NotFound, RedisUnavailable, Unauthorized
from shared.jobs.event_streams import StreamEvent, stream_key
from shared.jobs.models import Job, Status
from shared.redis_connection import is_outage

COMMENT_SECONDS = 3.0
DONE = b"data: [DONE]\n\n"


class Chunks(Protocol):
    """The chunks of one call's streams. ``number`` is the index of a choice."""

    def start(self, number: int) -> list[dict[str, Any]]:
        """What comes before the first piece of an answer."""

    def piece(self, number: int, delta: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk of a ``delta`` event."""

    def end(self, number: int, job: Job) -> list[dict[str, Any]]:
        """What comes after the last piece of an answer."""

    def usage(self, jobs: Sequence[Job]) -> dict[str, Any] | None:
        """The last chunk, if the client asks for it."""


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
        self._is_begun = False
        self._is_complete = False

    def response(self, release_slot: Callable[[], None]) -> Response:
        """The response. ``release_slot`` is called when it is over."""
        response = Response(self._pieces(), content_type="text/event-stream; charset=utf-8")
        # These also run if the client leaves before the first piece.
        response.call_on_close(release_slot)
        response.call_on_close(self.close)
        # Without this header nginx buffers events.
        response.headers["X-Accel-Buffering"] = "no"
        return response

    def close(self) -> None:
        """The response is over. If it is not complete, its client has left, and its jobs are cancelled.

        A client library repeats a request only until the response begins, so no retry joins the jobs of one that has begun.
        """
        if self._is_complete:
            self._jobs.end()
        else:
            self._jobs.leave(at_once=self._is_begun)

    def _pieces(self) -> Iterator[bytes]:
        yield b": accepted\n\n"
        self._is_begun = True
        try:
            yield from self._answer_pieces()
            if self._jobs.has_client_left():
                return
            usage = self._chunks.usage([self._ended[number] for number in range(len(self._jobs.ids))])
            yield (b"" if usage is None else _line(usage)) + DONE
            self._is_complete = True
        except EnginehouseError as error:
            self._jobs.cancel()
            self._is_complete = True
            yield _line({"error": error.as_json()}) + DONE
        except redis.RedisError as error:
            if not is_outage(error):
                raise
            # The jobs go on; without Redis they cannot be cancelled either.
            yield _line({"error": RedisUnavailable("Redis is unavailable, so the answer cannot be followed.").as_json()}) + DONE

    def _answer_pieces(self) -> Iterator[bytes]:
        """All chunks but the last one; ends early if the client has left. Raises the error of a job that did not complete."""
        said_at = time.monotonic()
        for events in self._events():
            if not self._is_valid():
                raise Unauthorized("This API key was revoked.", code="key_unknown", param="Authorization")
            lines = [_line(chunk) for number, event in events for chunk in self._event_chunks(number, event)]
            now = time.monotonic()
            if lines:
                said_at = now
                yield b"".join(lines)
                continue
            if self._jobs.has_client_left():
                return
            if now >= said_at + COMMENT_SECONDS:
                said_at = now
                yield self._comment()

    def _events(self) -> Iterable[list[tuple[int, StreamEvent]]]:
        context = self._context
        # Of a job that a retry has joined, the stream may no longer be kept.
        gone = {
            number for number, job in enumerate(self._first) if job.status.final and not context.redis.exists(stream_key(job.id))
        }
        yield [(number, event) for number in gone for event in summary_events(self._first[number], 0)]
        numbers = [number for number in range(len(self._first)) if number not in gone]
        starts = [(self._first[number].id, 0) for number in numbers]
        for events in follow_jobs(context.redis, context.follower, starts, LOOK_SECONDS):
            yield [(numbers[number], event) for number, event in events]

    def _event_chunks(self, number: int, event: StreamEvent) -> Iterator[dict[str, Any]]:
        if event.type == "delta":
            yield from self._start(number)
            self._sent.add(number)
            yield self._chunks.piece(number, event.data)
        elif event.type == "restart" and number in self._sent:
            raise OutputLost(
                f"The worker of job {self._jobs.ids[number]} was lost, and its answer starts again, which a stream in this form cannot say. "
                "Send the request again."
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


def _line(value: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
