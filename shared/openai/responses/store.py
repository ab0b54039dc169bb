"""Stored responses: what is kept of a response besides its job, for as long as it is used.

``eh:job:<id>:response`` is JSON: ``request``, the fields of the response that repeat the request, ``input``, the items of the
whole conversation before the answer, and ``new``, how many of them the request has added. It is written and deleted with the job. Reading it renews the time to live of both.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis

from shared.errors import NotFound
from shared.jobs.models import Job
from shared.jobs.queries import JobQueries
from shared.jobs.scripts import JobScripts
from shared.lua_scripts import Clock
from shared.openai.responses.body import response_of_job
from shared.openai.responses.ids import job_of_response, response_of_item


class StoredResponse(NamedTuple):
    """A response that can be retrieved: its job, the fields that repeat its request, the items before its answer, and how many of these
    were new."""

    job: Job
    request: Mapping[str, Any]
    input: Sequence[Mapping[str, Any]]
    new: int

    @property
    def new_input(self) -> Sequence[Mapping[str, Any]]:
        """The items of the request itself."""
        return self.input[len(self.input) - self.new :]

    def find_item(self, item: str) -> Mapping[str, Any] | None:
        """An item of the input or output with this id, or None."""
        return next((found for found in (*self.input, *self.body["output"]) if found["id"] == item), None)

    @property
    def body(self) -> dict[str, Any]:
        """The response object."""
        return response_of_job(self.job, self.request)


class StoredResponses:
    """Reads stored responses of owners. Those of other owners are not found. ``clock`` gives Unix milliseconds and is for tests."""

    def __init__(self, client: redis.Redis, *, clock: Clock | None = None) -> None:
        self._scripts = JobScripts(client, clock=clock)
        self._queries = JobQueries(client)

    def find(self, response: str, owner: str) -> StoredResponse:
        """The owner's response with this id. Raises NotFound."""
        job_id = job_of_response(response)
        record = self._scripts.read_response(id=job_id, owner=owner) if job_id else None
        job = self._queries.get_job(job_id) if job_id and record else None
        if job is None or not record:
            raise NotFound(
                f"Response {response[:80]!r} does not exist. It was not stored, was deleted, or has outlived its retention.",
                code="response_not_found",
            )
        stored = json.loads(record)
        return StoredResponse(job, stored["request"], stored["input"], stored.get("new", 0))

    def find_by_item(self, item: str, owner: str) -> StoredResponse | None:
        """The owner's stored response whose input or output has an item with this id, or None."""
        response = response_of_item(item)
        if response is None:
            return None
        try:
            return self.find(response, owner)
        except NotFound:
            return None
