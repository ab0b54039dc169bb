"""The calls on jobs: submit, look, wait, follow, cancel, repeat, forget, list."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from enginehouse_client.effects import Emit, Open, Operation, Receive, Request, Response, Sleep, Stream
from enginehouse_client.errors import ConnectionFailed, InvalidRequest, NotFound, RateLimited, Timeout, Unavailable
from enginehouse_client.events import Event, EventParser
from enginehouse_client.models import Job, Status
from enginehouse_client.retry import RetryPolicy, error_from_response, send_with_retries

# One long poll: short enough for any proxy, long enough to be few.
POLL_SECONDS = 20
# Keep-alives come every 15 s; a stream that is silent for longer is dead.
SILENCE_SECONDS = 45.0
LONGEST_PAUSE = 10.0
PAGE = 100


class Message(TypedDict):
    role: str
    content: str


class Options(TypedDict, total=False):
    """How a generation goes about it; the server's documentation has the limits. What is left out is the model's business.

    ``collection`` answers from documents; ``timeout`` and ``expires_in`` are seconds; ``webhook`` is told of the end.
    """

    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop: str | Sequence[str]
    seed: int
    collection: str
    passages: int
    priority: int | str
    expires_in: float
    timeout: float
    metadata: Mapping[str, str]
    webhook: Mapping[str, Any]


class JobCalls:
    """What is sent for each call, and what its answer means; knows no connection."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        self.retry_policy = retry_policy

    def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Message] | None = None,
        wait: int = 0,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Operation[Job]:
        """Submit a generation, from a ``prompt`` that is given to the model as it is, or from ``messages``, through the
        model's chat template. With ``wait`` (seconds) the job that comes back has ended, if it did in time.

        Sent again under one key when its answer is lost, so that one job is made.
        """
        body: dict[str, Any] = dict(options)
        if prompt is not None:
            body["prompt"] = prompt
        if messages is not None:
            body["messages"] = list(messages)
        answer = yield from self.submit("/generate", body, wait, idempotency_key)
        return Job.read(answer.json())

    def ask(self, question: str, *, wait_timeout: float | None = None, **options: Unpack[Options]) -> Operation[str]:
        """The model's answer to one message. Raises JobFailed, and Timeout after ``wait_timeout`` seconds."""
        job = yield from self.generate(messages=[{"role": "user", "content": question}], **options)
        ended = yield from self.wait(job, timeout=wait_timeout)
        return ended.text

    def get(self, job: str | Job) -> Operation[Job]:
        """A job as it stands. Raises NotFound."""
        answer = yield from self._call("GET", f"/jobs/{_id(job)}")
        return Job.read(answer.json())

    def wait(
        self,
        job: str | Job,
        *,
        timeout: float | None = None,
        every: float = POLL_SECONDS,
        on_poll: Callable[[Job], None] | None = None,
    ) -> Operation[Job]:
        """The job once it has ended, however it did. ``on_look`` is shown it each time, at least ``every`` so many seconds.

        The server holds each request until the job ends, so an end is known at once; a server that does not hold requests for
        so long is asked at growing intervals. Raises Timeout after ``within`` seconds, and NotFound.
        """
        clock, path = self.retry_policy.clock, f"/jobs/{_id(job)}"
        deadline = None if timeout is None else clock() + timeout
        may_hold, pause = True, 0.5
        while True:
            left = every if deadline is None else min(every, deadline - clock())
            held = int(left) if may_hold and left >= 1 else 0
            query = {"wait": str(held)} if held else {}
            try:
                answer = yield from self._call("GET", path, query, timeout=self.retry_policy.timeout + held)
            except (InvalidRequest, Unavailable) as error:
                # It does not hold for so long, or holds too many already.
                if not held or (isinstance(error, InvalidRequest) and error.param != "wait"):
                    raise
                may_hold = False
                continue
            found = Job.read(answer.json())
            if on_poll is not None:
                on_poll(found)
            if found.ended:
                return found
            if deadline is not None and clock() >= deadline:
                raise Timeout(f"job {found.id} has not ended within {timeout:g} s, it is {found.status}")
            if not held:
                yield Sleep(min(pause, every) if deadline is None else min(pause, every, max(0.0, deadline - clock())))
                pause = min(pause * 1.5, LONGEST_PAUSE)

    def stream(self, job: str | Job, *, after: int = 0) -> Stream[Event]:
        """The events of a job, from its start or after the event of this id, until it has ended.

        A connection that breaks is made anew after the last event, so each comes once. An event ``restart`` says that the text
        so far is void. Raises ConnectionFailed when several connections in a row bring nothing.
        """
        path, failures = f"/jobs/{_id(job)}/events", 0
        while True:
            parser = EventParser()
            error: ConnectionFailed | RateLimited | Unavailable
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
            try:
                answer: Response = yield Open(Request(method="GET", path=path, headers=headers, timeout=SILENCE_SECONDS))
                if answer.status == 204:
                    return
                if answer.status >= 400:
                    raise error_from_response(answer)
                while piece := (yield Receive()):
                    for told in parser.feed(piece):
                        event = Event.read(told)
                        if event.id <= after:
                            continue
                        after, failures = event.id, 0
                        yield Emit(event)
                        if event.type == "ended":
                            return
                error = ConnectionFailed(f"the stream of {path} ended before its job did")
            except (ConnectionFailed, RateLimited, Unavailable) as broken:
                error = broken
            failures += 1
            if failures > self.retry_policy.retries:
                raise error
            yield Sleep(self.retry_policy.pause(failures, getattr(error, "retry_after", None)))

    def cancel(self, job: str | Job) -> Operation[Job]:
        """Stop a job. It is ``cancelled`` when it was queued; when it runs, it will be soon. Raises Conflict when it has ended."""
        answer = yield from self._call("POST", f"/jobs/{_id(job)}/cancel")
        return Job.read(answer.json())

    def retry(self, job: str | Job) -> Operation[Job]:
        """Do an ended job again: the new job. Raises Conflict when it has not ended."""
        # Twice would make two jobs.
        answer = yield from self._call("POST", f"/jobs/{_id(job)}/retry", repeatable=False)
        return Job.read(answer.json())

    def delete(self, job: str | Job) -> Operation[None]:
        """Forget an ended job. Raises Conflict when it has not ended, NotFound when there is none."""
        yield from self.remove(f"/jobs/{_id(job)}")

    def jobs(
        self, *, status: Status | None = None, kind: str | None = None, model: str | None = None, batch: str | Job | None = None
    ) -> Stream[Job]:
        """All jobs, newest first, page after page as they are asked for."""
        wanted = {"status": status, "kind": kind, "model": model, "batch": None if batch is None else _id(batch)}
        query = {name: value for name, value in wanted.items() if value is not None}
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page("/jobs", query, more)
            for told in page:
                yield Emit(Job.read(told))

    def request(self, method: str, path: str, *, json: Any = None, query: Mapping[str, str] | None = None) -> Operation[Any]:
        """Any other call: its JSON. A call that is not a GET is sent again only when the server cannot have acted on it."""
        answer = yield from self._call(method, path, query or {}, json=json, repeatable=method == "GET")
        return answer.json()

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
        query: Mapping[str, str] | None = None,
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

    def _page(self, path: str, query: Mapping[str, str], after: str) -> Operation[tuple[list[dict[str, Any]], str | None]]:
        """A page, and where the next one begins; None when there is none."""
        more = {"limit": str(PAGE), **query, **({"after": after} if after else {})}
        answer = yield from self._call("GET", path, more)
        told = answer.json()
        return told["data"], told["next"]

    def remove(self, path: str) -> Operation[None]:
        """Delete what is at ``path``, and wait until it is gone."""
        try:
            answer = yield from self._call("DELETE", path, timeout=self.retry_policy.timeout + 30)
        except NotFound as error:
            # An earlier try, whose answer was lost, has done it.
            if error.tries == 1:
                raise
            return
        if answer.status == 202:
            job = yield from self.wait(answer.json()["id"])
            job.completed()


def _id(job: str | Job) -> str:
    return quote(job if isinstance(job, str) else job.id, safe="")
