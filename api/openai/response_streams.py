"""Streams of responses: the events of a job as OpenAI's events, from any one on."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import redis
from flask import Response, g

from api.openai.errors import OutputLost
from api.openai.request_jobs import RequestJobs
from api.openai.streams import AnswerStream
from api.services import services
from shared.errors import EnginehouseError, InvalidValue
from shared.jobs.event_streams import StreamEvent, read_events
from shared.jobs.serialization import to_json
from shared.openai.responses.body import initial_response
from shared.openai.responses.events import ResponseEvents
from shared.openai.responses.store import StoredResponse


class ResponseStream(AnswerStream):
    """The stream of one response, after the event with the number ``after``. ``request`` has the fields that repeat the request."""

    def __init__(self, jobs: RequestJobs, request: Mapping[str, Any], *, after: int = -1) -> None:
        super().__init__(jobs, lambda job: None)  # type: ignore[arg-type, return-value]
        [job] = self._first
        self._events_of_response = ResponseEvents(job.id, initial_response(job, request))
        self._after = after
        self._runs_on = job.response == "background" or jobs.keep
        self._is_stored = job.response != "not_stored"

    def close(self) -> None:
        """End the response. If nothing of it is to be stored, its job is deleted once the client has it."""
        super().close()
        for job in self._ended.values():
            with suppress(redis.RedisError):
                self._context.conversations.add_response(job)
        if self._is_complete and not self._is_stored:
            self._jobs.delete()

    def _event_chunks(self, number: int, event: StreamEvent) -> Iterator[dict[str, Any]]:
        job = self._jobs.read(self._jobs.ids[number]) if event.type == "ended" else None
        for sent in self._events_of_response.feed(event, job):
            if sent["sequence_number"] <= self._after:
                continue
            self._after = sent["sequence_number"]
            if sent["type"] == "error":
                raise OutputLost(sent["message"])
            yield sent
        if job is not None:
            self._ended[number] = job

    def _last_piece(self) -> bytes:
        return b""

    def _error_piece(self, error: EnginehouseError) -> bytes:
        # It has the number of an event that was sent, or that a continued stream need not repeat, so none is left out.
        fields = {"code": error.code, "message": error.message, "param": error.param}
        return self._line({"type": "error", "sequence_number": max(self._after, 0), **fields})

    def _cancel(self) -> None:
        if not self._runs_on:
            super()._cancel()

    def _line(self, value: Mapping[str, Any]) -> bytes:
        return f"event: {value['type']}\ndata: {to_json(value)}\n\n".encode()


def continue_stream(stored: StoredResponse, after: int) -> Response:
    """The response that streams a stored response after an event. Raises InvalidValue if its events are no longer kept."""
    context, job = services(), stored.job
    if job.status.final and after >= 0:
        first = read_events(context.redis, job.id, limit=1)
        if not first or first[0].sequence > 1:
            raise InvalidValue(
                "starting_after: the events of this response are no longer kept, so its stream cannot be continued. Retrieve it without"
                " stream, or send background: true and stream: true with the next one.",
                param="starting_after",
            )
    release = context.job_waiter.acquire_slot("streams")
    try:
        g.job_ids = [job.id]
        return ResponseStream(RequestJobs([job.id], None, keep=True), stored.request, after=after).response(release)
    except BaseException:
        release()
        raise
