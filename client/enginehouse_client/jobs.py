"""Operations on jobs: submit, get, wait, stream, cancel, retry, delete, list."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import quote

from enginehouse_client.effects import Emit, Open, Operation, Query, Receive, Request, Response, Sleep, Stream
from enginehouse_client.errors import ConnectionFailed, InvalidRequest, NotFound, RateLimited, Timeout, Unavailable
from enginehouse_client.events import Event, EventParser
from enginehouse_client.models import ActionFailure, Job, JobCounts, Status
from enginehouse_client.retry import RetryPolicy, error_from_response, send_with_retries

# Duration of one long poll: short enough for any proxy, long enough to need few requests.
POLL_SECONDS = 20
# The server sends keep-alives every 15 s, so a silent stream is dead.
SILENCE_SECONDS = 45.0
MAX_POLL_DELAY = 10.0
PAGE = 100
# The server changes this many jobs in one request.
ACTION_JOBS = 1000


class Message(TypedDict):
    """A message of a conversation."""

    role: str
    content: str


class Options(TypedDict, total=False):
    """Options of a generation; the server's documentation has their limits, and the model provides the defaults.

    ``collection`` answers from documents: its name, or a mapping with ``name`` and options of the retrieval, such as ``min_relevance``.
    ``rewrite`` says whether a question that follows others is rewritten before the search. ``timeout`` and ``expires_in`` are in seconds;
    ``not_before`` is seconds from now or a time in RFC 3339; of your jobs with the same ``concurrency_key``, at most
    ``concurrency_limit`` (1) run at once; ``webhook`` is notified of the end.
    ``deterministic`` keeps other requests from changing the answer, at a cost to all of them; the ``end_user`` values of a key take
    turns within its share.
    """

    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop: str | Sequence[str]
    seed: int
    deterministic: bool
    collection: str | Mapping[str, Any]
    passages: int
    rewrite: bool
    priority: int | str
    end_user: str
    expires_in: float
    timeout: float
    not_before: float | str
    concurrency_key: str
    concurrency_limit: int
    metadata: Mapping[str, str]
    webhook: Mapping[str, Any]


class GenerateOptions(Options, total=False):
    """Options of a generation outside of a chat. Without ``store`` the server deletes the job a minute after its end; ``keep_seconds``
    replaces the time for which the server keeps jobs."""

    store: bool
    keep_seconds: int


class ChatOptions(Options, total=False):
    """Options of a message of a chat. ``system`` is the system prompt of its answer."""

    system: str


class JobFilters(TypedDict, total=False):
    """What listed jobs have. ``collection`` is a name, ``q`` text in the summary; ``since`` and ``until`` are Unix seconds."""

    status: Status | Sequence[Status] | None
    kind: str | None
    model: str | None
    collection: str | None
    batch: str | Job | None
    q: str | None
    since: float | None
    until: float | None
    metadata: Mapping[str, str] | None


class JobCalls:
    """Operations on jobs, and the requests that other operations are built from."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        self.retry_policy = retry_policy

    def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        wait: int = 0,
        idempotency_key: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Operation[Job]:
        """Submit a generation, from a ``prompt`` that is passed to the model unchanged or from ``messages``, which go through the
        model's chat template. With ``wait`` (seconds) the returned job has ended, if it did so in time.

        Retries use one idempotency key, so that a lost response does not create a second job.
        """
        body: dict[str, Any] = dict(options)
        if prompt is not None:
            body["prompt"] = prompt
        if messages is not None:
            body["messages"] = list(messages)
        response = yield from self.submit("/generate", body, wait, idempotency_key)
        return Job.from_json(response.json())

    def ask(self, question: str, *, wait_timeout: float | None = None, **options: Unpack[GenerateOptions]) -> Operation[str]:
        """Return the answer to one message. Raises JobFailed, and Timeout after ``wait_timeout`` seconds. The option ``timeout``
        limits the job itself."""
        job = yield from self.generate(messages=[{"role": "user", "content": question}], **options)
        ended = yield from self.wait(job, timeout=wait_timeout)
        return ended.text

    def get(self, job: str | Job) -> Operation[Job]:
        """Return the current state of a job. Raises NotFound."""
        response = yield from self._call("GET", f"/jobs/{_id(job)}")
        return Job.from_json(response.json())

    def wait(
        self,
        job: str | Job,
        *,
        timeout: float | None = None,
        every: float = POLL_SECONDS,
        on_poll: Callable[[Job], None] | None = None,
    ) -> Operation[Job]:
        """Wait for the end of a job, in whatever state, and return it. ``on_poll`` receives the job after each poll, at least
        once ``every`` seconds.

        The server holds each request until the job ends, so that its end is known immediately. A server that does not hold requests
        for that long is polled at growing intervals. Raises Timeout after ``timeout`` seconds, and NotFound.
        """
        clock, path = self.retry_policy.clock, f"/jobs/{_id(job)}"
        deadline = None if timeout is None else clock() + timeout
        may_long_poll, pause = True, 0.5
        while True:
            left = every if deadline is None else min(every, deadline - clock())
            held = int(left) if may_long_poll and left >= 1 else 0
            query = {"wait": str(held)} if held else {}
            try:
                response = yield from self._call("GET", path, query, timeout=self.retry_policy.timeout + held)
            except (InvalidRequest, Unavailable) as error:
                # The server does not allow long polls of this length, or holds too many already.
                if not held or (isinstance(error, InvalidRequest) and error.param != "wait"):
                    raise
                may_long_poll = False
                continue
            found = Job.from_json(response.json())
            if on_poll is not None:
                on_poll(found)
            if found.ended:
                return found
            if deadline is not None and clock() >= deadline:
                raise Timeout(f"job {found.id} has not ended within {timeout:g} s (status {found.status})")
            if not held:
                yield Sleep(min(pause, every) if deadline is None else min(pause, every, max(0.0, deadline - clock())))
                pause = min(pause * 1.5, MAX_POLL_DELAY)

    def stream(self, job: str | Job, *, after: int = 0) -> Stream[Event]:
        """Iterate over the events of a job until it ends, from the start or after the event with the id ``after``.

        A broken connection is reopened after the last event, so each event comes once. The event ``restart`` means that the text so
        far is void: another attempt could not continue it. Raises ConnectionFailed if several connections in a row deliver nothing.
        """
        path, failures = f"/jobs/{_id(job)}/events", 0
        while True:
            parser = EventParser()
            error: ConnectionFailed | RateLimited | Unavailable
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
            try:
                response: Response = yield Open(Request(method="GET", path=path, headers=headers, timeout=SILENCE_SECONDS))
                if response.status == 204:
                    return
                if response.status >= 400:
                    raise error_from_response(response)
                while piece := (yield Receive()):
                    for server_event in parser.feed(piece):
                        event = Event.parse(server_event)
                        if event.id <= after:
                            continue
                        after, failures = event.id, 0
                        yield Emit(event)
                        if event.type == "ended":
                            return
                error = ConnectionFailed(f"the stream {path} closed before the job ended")
            except (ConnectionFailed, RateLimited, Unavailable) as broken:
                error = broken
            failures += 1
            if failures > self.retry_policy.retries:
                raise error
            yield Sleep(self.retry_policy.delay(failures, getattr(error, "retry_after", None)))

    def cancel(self, job: str | Job) -> Operation[Job]:
        """Cancel a job. A queued job is ``cancelled`` immediately, a running one shortly after. Raises Conflict if it has ended."""
        response = yield from self._call("POST", f"/jobs/{_id(job)}/cancel")
        return Job.from_json(response.json())

    def retry(self, job: str | Job) -> Operation[Job]:
        """Run an ended job again, as a new job, which is returned. Raises Conflict if it has not ended."""
        # A repeated request would create two jobs.
        response = yield from self._call("POST", f"/jobs/{_id(job)}/retry", repeatable=False)
        return Job.from_json(response.json())

    def delete(self, job: str | Job) -> Operation[None]:
        """Delete an ended job. Raises Conflict if it has not ended, and NotFound."""
        yield from self.remove(f"/jobs/{_id(job)}")

    def jobs(self, **filters: Unpack[JobFilters]) -> Stream[Job]:
        """Iterate over jobs, newest first, fetching pages as needed."""
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page("/jobs", _filter_query(filters), more)
            for item in page:
                yield Emit(Job.from_json(item))

    def job_counts(self, **filters: Unpack[JobFilters]) -> Operation[JobCounts]:
        """Count jobs by status, kind and model."""
        response = yield from self._call("GET", "/jobs/counts", _filter_query(filters))
        return JobCounts.from_json(response.json())

    def job_request(self, job: str | Job) -> Operation[Mapping[str, Any] | None]:
        """Return what a job was asked to do, or None if its prompt was deleted. Raises NotFound."""
        response = yield from self._call("GET", f"/jobs/{_id(job)}/request")
        request: Mapping[str, Any] | None = response.json()["request"]
        return request

    def job_log(self, job: str | Job) -> Operation[Mapping[str, Any]]:
        """Return what happened to a job: ``request_id``, ``trace_id`` and ``lines`` with ``at``, ``level`` and ``message``. Raises NotFound."""
        response = yield from self._call("GET", f"/jobs/{_id(job)}/log")
        log: Mapping[str, Any] = response.json()
        return log

    def change_jobs(
        self, action: Literal["cancel", "retry", "delete"], jobs: Iterable[str | Job]
    ) -> Operation[list[ActionFailure]]:
        """Cancel, retry or delete many jobs, and return those to which it did not apply. Completed jobs, and jobs that were retried
        before, are not retried."""
        ids = [job if isinstance(job, str) else job.id for job in jobs]
        failures: list[ActionFailure] = []
        for start in range(0, len(ids), ACTION_JOBS):
            body = {"action": action, "ids": ids[start : start + ACTION_JOBS]}
            # A repeated request would report the jobs that the first one has changed as failures.
            response = yield from self._call("POST", "/jobs/actions", json=body, repeatable=False)
            failures += [ActionFailure.from_json(one) for one in response.json()["failed"]]
        return failures

    def request(self, method: str, path: str, *, json: Any = None, query: Mapping[str, str] | None = None) -> Operation[Any]:
        """Send any other request and return its JSON. Only GET is retried when the server may have processed the request."""
        response = yield from self._call(method, path, query or {}, json=json, repeatable=method == "GET")
        return response.json()

    def submit(
        self, path: str, body: Mapping[str, Any], wait: int = 0, idempotency_key: str | None = None
    ) -> Operation[Response]:
        headers = {
            "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
            "Prefer": f"wait={wait}" if wait else "respond-async",
        }
        request = Request(
            method="POST", path=path, headers=headers, json=body, timeout=self.retry_policy.timeout + wait, repeatable=True
        )
        return (yield from send_with_retries(request, self.retry_policy))

    def _call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        json: Any = None,
        timeout: float | None = None,
        repeatable: bool = True,
        accept: tuple[int, ...] = (),
    ) -> Operation[Response]:
        request = Request(
            method=method,
            path=path,
            query=query or {},
            json=json,
            timeout=timeout or self.retry_policy.timeout,
            repeatable=repeatable,
        )
        return (yield from send_with_retries(request, self.retry_policy, accept))

    def _page(self, path: str, query: Query, after: str) -> Operation[tuple[list[dict[str, Any]], str | None]]:
        """Return a page and the cursor of the next one, or None after the last page."""
        parameters = {"limit": str(PAGE), **query, **({"after": after} if after else {})}
        response = yield from self._call("GET", path, parameters)
        body = response.json()
        return body["data"], body["next"]

    def remove(self, path: str) -> Operation[None]:
        """Delete the resource at ``path`` and wait until it is gone."""
        try:
            response = yield from self._call("DELETE", path, timeout=self.retry_policy.timeout + 30)
        except NotFound as error:
            # An earlier attempt, whose response was lost, deleted it.
            if error.attempts == 1:
                raise
            return
        if response.status == 202:
            job = yield from self.wait(response.json()["id"])
            job.completed()


def _id(job: str | Job) -> str:
    return quote(job if isinstance(job, str) else job.id, safe="")


def _filter_query(filters: JobFilters) -> Query:
    query: dict[str, str | Sequence[str]] = {}
    for name, value in filters.items():
        if isinstance(value, Mapping):
            query.update({f"metadata.{key}": text for key, text in value.items()})
        elif isinstance(value, Job):
            query[name] = value.id
        elif isinstance(value, (int, float)):
            query[name] = f"{value:.3f}"
        elif isinstance(value, (str, Sequence)):
            query[name] = value
    return query
