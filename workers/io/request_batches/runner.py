"""Request batch runner: the handler of jobs of kind ``request_batch``.

It reads the input once to check it, then keeps a bounded number of requests in flight, each as a job whose id comes from the batch and
the number of the request. Outcomes are appended to the output, and then noted in Redis in the step that deletes their jobs. Whoever
continues after a crash finds there what is written, and finds the jobs of all other requests by their ids.
"""

import logging
import os
import shutil
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO

import redis

from shared.disk_space import DiskSpace
from shared.documents.store import Documents
from shared.errors import EnginehouseError, NotFound, TooMany, TooManyAtOnce
from shared.ids import JOB, derived_id
from shared.jobs.job_rights import job_rights_of
from shared.jobs.models import Job, Status
from shared.jobs.queries import JobQueries
from shared.jobs.scripts import JobScripts
from shared.jobs.serialization import to_json
from shared.jobs.servable_models import ServableModels
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.openai.batches import LINE_PRIORITY, PHASES, USAGE, RequestBatches, output_file_id, public_id, written_key
from shared.openai.endpoints import plan_request
from shared.openai.files import FileStore
from shared.openai.job_errors import error_of_job
from shared.openai.request_plan import PlanContext
from shared.openai.responses.store import StoredResponses
from shared.rights import ALL_RIGHTS, Rights
from shared.settings import Settings
from workers.io.request_batches.input_index import InputIndex, InputLimits, InvalidBatch
from workers.io.request_batches.outcomes import Outcome, answered, refused, unfinished
from workers.io.request_batches.output import ERRORS, NAMES, OUTPUT, BatchOutput
from workers.runtime.attempt import Attempt, AttemptStopped, Result, StopReason

logger = logging.getLogger(__name__)

# Requests in flight have at most this many bytes together, unless a single one has more.
MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
# How many outcomes are written together.
GROUP = 64
# Between two looks at the jobs in flight: the first after something has ended, and the longest while nothing ends.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
# After a refusal because a queue or the owner's share of memory is full.
FULL_PAUSE = 0.2
PROGRESS_SECONDS = 1.0
# How long requests that run when their batch is cancelled have to stop.
CANCEL_SECONDS = 10.0

EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED = ("batch_cancelled", "The batch was cancelled before this request had ended.")


@dataclass(frozen=True)
class RequestInFlight:
    """A request whose jobs are submitted."""

    custom_id: str
    jobs: Sequence[str]
    make_body: Callable[[Sequence[Job]], Mapping[str, Any]]
    size: int


@dataclass(frozen=True, kw_only=True)
class BatchServices:
    """What runners share. All are safe to use from many threads."""

    client: redis.Redis
    settings: Settings
    submitter: JobSubmitter
    transitions: JobTransitions
    models: ServableModels
    files: FileStore
    disk_space: DiskSpace


def run_request_batch(attempt: Attempt, services: BatchServices) -> Result:
    """Run the batch of an attempt to its end, or until the attempt must stop. Raises InvalidBatch."""
    return RequestBatchRunner(attempt, services).run()


class RequestBatchRunner:
    """One attempt at a request batch."""

    def __init__(self, attempt: Attempt, services: BatchServices) -> None:
        self._attempt = attempt
        self._job = attempt.job
        self._services = services
        self._settings = services.settings
        self._batches = RequestBatches(services.client)
        self._queries = JobQueries(services.client)
        self._responses = StoredResponses(services.client)
        rights = attempt.spec.get("rights")
        self._rights = ALL_RIGHTS if rights is None else Rights.from_json(rights)
        self._concurrency = attempt.spec.get("concurrency") or {}
        self._models = services.models.restricted_to(self._rights)
        self._documents = Documents(services.client, services.settings).restricted_to(self._rights)
        self._scripts = JobScripts(services.client)
        self._folder = services.settings.request_batches_dir / attempt.job.id
        self._state = self._batches.state(attempt.job.id)
        self._output = BatchOutput(self._folder, attempt.job, services.disk_space)
        limits = InputLimits(self._settings.max_batch_requests, self._settings.max_body_bytes)
        self._index = InputIndex(self._folder / "input.jsonl", self._state["endpoint"], limits)
        self._counts = {name: int(self._state.get(name, 0)) for name in ("completed", "failed", *USAGE)}
        self._in_flight: dict[int, RequestInFlight] = {}
        self._bytes_in_flight = 0
        self._todo = Todo(array("I"))
        self._wake = threading.Event()
        self._now_ms = 0
        self._full_until = 0.0
        self._progress_at = 0.0

    def run(self) -> Result:
        self._attempt.on_stop(self._wake.set)
        if self._state["phase"] in PHASES[:2]:
            self._read_input()
            try:
                if not self._output.exists(self._state):
                    self._start_over()
                self._output.open(self._state)
                self._note({"part": self._job.attempt})
                self._output.remove_earlier()
                self._run_requests()
                finalizing_at = self._batches.now_ms()
                self._note({"phase": "finalizing", "finalizing_at": finalizing_at, "outcome": self._state["outcome"]})
            finally:
                self._output.close()
        if self._state["phase"] == "finalizing":
            self._publish_output()
        # Also after a crash at this point.
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._state["outcome"] == "cancelled":
            raise AttemptStopped("cancel")
        counts = {"total": int(self._state["total"])} | {name: self._counts[name] for name in ("completed", "failed")}
        files = {f"{name}_file_id": self._state.get(f"{name}_file") or None for name in NAMES}
        return Result(value={"batch": public_id(self._job.id), "request_counts": counts, **files})

    # Input

    def _read_input(self) -> None:
        """Check the input and find its requests. Raises InvalidBatch."""
        try:
            self._link_input()
            self._index.build(self._raise_if_interrupted)
        except InvalidBatch as error:
            self._note({"errors": to_json(error.errors)})
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        if self._state["phase"] == PHASES[0]:
            started_at = self._batches.now_ms()
            total, model = len(self._index), self._index.model
            self._note({"phase": PHASES[1], "in_progress_at": started_at, "total": total, "model": model})

    def _link_input(self) -> None:
        """Keep the input for as long as the batch runs, even if its file is deleted."""
        link = self._folder / "input.jsonl"
        if link.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            file = self._services.files.get(self._state["input_file"], self._job.owner)
            os.link(self._services.files.path(file), link)
        except (NotFound, FileNotFoundError):
            message = f"The input file {self._state['input_file']} was deleted before the batch started."
            raise InvalidBatch([{"code": "file_not_found", "line": None, "message": message, "param": "input_file_id"}]) from None

    def _start_over(self) -> None:
        """Run all requests again, as what was written is gone, such as after the restore of a backup."""
        logger.warning("job %s: its output is gone, so all requests run again", self._job.id)
        # First, so that a crash in between repeats this.
        self._services.client.delete(written_key(self._job.id))
        self._counts = dict.fromkeys(self._counts, 0)
        self._note({**self._counts, **{f"{name}_size": 0 for name in NAMES}})

    # Requests

    def _run_requests(self) -> None:
        """Run all requests whose outcome is not written. Sets ``outcome``."""
        self._todo = self._unwritten()
        deadline = int(self._state["deadline"])
        pause = SHORTEST_PAUSE
        with self._index.open() as stream:
            while True:
                if self._is_cancelled():
                    return self._close("cancelled", CANCELLED, stream)
                self._raise_if_interrupted()
                self._now_ms = self._batches.now_ms()
                if self._now_ms >= deadline:
                    return self._close("expired", EXPIRED, stream)
                written = self._write(self._submit_requests(stream)) + self._write_ended()
                if not self._in_flight and not self._todo.has_more():
                    self._state["outcome"] = "completed"
                    return None
                self._report_progress()
                pause = SHORTEST_PAUSE if written else min(2 * pause, LONGEST_PAUSE)
                self._wake.wait(pause)

    def _unwritten(self) -> "Todo":
        words = self._batches.written(self._job.id, len(self._index))
        return Todo(array("I", (number for number in self._index.order if not words[number // 32] >> (31 - number % 32) & 1)))

    def _submit_requests(self, stream: BinaryIO) -> list[tuple[int, Outcome]]:
        """Submit requests as far as the limits allow. Returns the outcomes of those that were refused."""
        outcomes: list[tuple[int, Outcome]] = []
        while (
            len(self._in_flight) < self._settings.batch_window and len(outcomes) < GROUP and time.monotonic() >= self._full_until
        ):
            number = self._todo.first()
            if number is None or (self._in_flight and self._bytes_in_flight + self._index.length(number) > MAX_BYTES_IN_FLIGHT):
                break
            try:
                custom_id, refusal = self._submit_request(number, stream)
            except TooMany:
                self._full_until = time.monotonic() + FULL_PAUSE
                break
            self._todo.drop_first()
            if refusal is not None:
                outcomes.append((number, refused(self._job.id, number, custom_id, refusal)))
        return outcomes

    def _submit_request(self, number: int, stream: BinaryIO) -> tuple[str, EnginehouseError | None]:
        """Submit the jobs of a request, or return why it is refused. Raises TooMany and RedisError."""
        custom_id, body = self._index.read(stream, number)
        context = PlanContext(
            models=self._models,
            owner=self._job.owner,
            responses=self._responses,
            documents=self._documents,
            passages=self._settings.retrieve_top_k,
            rewrites_questions=self._settings.rewrite_questions,
            rights=self._rights,
            require_job=self._require_job,
        )
        try:
            plan = plan_request(self._state["endpoint"], body, context)
        except EnginehouseError as error:
            return custom_id, error
        submissions = [self._line_submission(number, place, job) for place, job in enumerate(plan.submissions)]
        try:
            self._services.submitter.submit_jobs(submissions)
        except TooManyAtOnce as error:
            return custom_id, error
        except TooMany:
            raise
        except EnginehouseError as error:
            return custom_id, error
        size = self._index.length(number)
        self._in_flight[number] = RequestInFlight(custom_id, [job.id for job in submissions], plan.make_body, size)
        self._bytes_in_flight += size
        return custom_id, None

    def _require_job(self, job: Job) -> None:
        """Raise Forbidden unless the key that created the batch may see a job."""
        rights = job_rights_of(self._rights, self._job.owner, self._documents)
        if rights is not None:
            rights.require(job, self._queries.read_spec)

    def _line_submission(self, number: int, place: int, submission: Submission) -> Submission:
        return replace(
            submission,
            id=derived_id(JOB, self._job.id, str(number), str(place)),
            priority=LINE_PRIORITY,
            line_of=self._job.id,
            key=self._job.key,
            expires_ms=max(1, int(self._state["deadline"]) - self._now_ms),
            **({} if submission.concurrency_key else self._concurrency),
        )

    # Outcomes

    def _write_ended(self) -> int:
        """Write the outcomes of requests whose jobs have ended, and return how many."""
        ended, count = self._ended_requests(), 0
        for start in range(0, len(ended), GROUP):
            count += self._write([(number, self._outcome(number)) for number in ended[start : start + GROUP]])
        return count

    def _ended_requests(self) -> list[int]:
        """The requests in flight whose jobs have all ended. Those whose jobs somebody has deleted are submitted again."""
        # Most jobs have not ended, and this is asked many times a second.
        candidates = self._requests_with_an_ended_job()
        statuses = iter(self._queries.statuses([job for number in candidates for job in self._in_flight[number].jobs]))
        ended = []
        for number in candidates:
            found = list(islice(statuses, len(self._in_flight[number].jobs)))
            if None in found:
                self._drop(number)
                self._todo.put_back(number)
            elif all(status is not None and status.final for status in found):
                ended.append(number)
        return ended

    def _requests_with_an_ended_job(self) -> list[int]:
        unended = iter(self._queries.unended([job for request in self._in_flight.values() for job in request.jobs]))
        return [number for number, request in self._in_flight.items() if not all(list(islice(unended, len(request.jobs))))]

    def _outcome(self, number: int) -> Outcome:
        request = self._in_flight[number]
        jobs = self._queries.get_jobs(list(request.jobs))
        try:
            for job in jobs:
                if job.status is not Status.COMPLETED:
                    raise error_of_job(job)
            body = request.make_body(jobs)
        except EnginehouseError as error:
            return refused(self._job.id, number, request.custom_id, error)
        return answered(self._job.id, number, request.custom_id, body)

    def _write(self, outcomes: Sequence[tuple[int, Outcome]]) -> int:
        """Append outcomes to the output, and note that in Redis. Returns how many there were."""
        if not outcomes:
            return 0
        for name, count in ((OUTPUT, "completed"), (ERRORS, "failed")):
            lines = [outcome.line for _, outcome in outcomes if outcome.file == name]
            if lines:
                self._output.append(name, b"".join(lines))
                self._counts[count] += len(lines)
        for _, outcome in outcomes:
            for name, tokens in outcome.usage.items():
                self._counts[name] += tokens
        self._output.sync()
        numbers = [number for number, _ in outcomes]
        jobs = [job for number in numbers if number in self._in_flight for job in self._in_flight[number].jobs]
        self._note({**self._counts, **{f"{name}_size": self._output.sizes[name] for name in NAMES}}, numbers, jobs)
        for number in numbers:
            self._drop(number)
        return len(outcomes)

    def _drop(self, number: int) -> None:
        request = self._in_flight.pop(number, None)
        if request is not None:
            self._bytes_in_flight -= request.size

    def _close(self, outcome: str, error: tuple[str, str], stream: BinaryIO) -> None:
        """Cancel what runs, and write an error for each request that has not ended."""
        jobs = [job for request in self._in_flight.values() for job in request.jobs]
        for job in jobs:
            self._services.transitions.cancel(job, self._job.owner)
        stop_at = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < stop_at and not all(status is None or status.final for status in self._queries.statuses(jobs)):
            self._raise_if_interrupted()
            time.sleep(SHORTEST_PAUSE)
        for number in list(self._in_flight):
            found = self._queries.get_jobs(list(self._in_flight[number].jobs))
            is_answered = bool(found) and all(job.status is Status.COMPLETED for job in found)
            custom_id = self._in_flight[number].custom_id
            line = self._outcome(number) if is_answered else unfinished(self._job.id, number, custom_id, *error)
            self._write([(number, line)])
        while group := self._todo.take(GROUP):
            self._raise_if_interrupted()
            lines = [unfinished(self._job.id, number, self._index.read(stream, number).custom_id, *error) for number in group]
            self._write(list(zip(group, lines, strict=True)))
        self._state["outcome"] = outcome

    # State

    def _note(self, changes: Mapping[str, Any], numbers: Sequence[int] = (), jobs: Sequence[str] = ()) -> None:
        """Change the state. Raises AttemptStopped if another attempt has the batch."""
        texts = {name: str(value) for name, value in changes.items()}
        answer = self._scripts.write_requests(
            id=self._job.id, attempt=self._job.attempt, lines=" ".join(map(str, numbers)), jobs=" ".join(jobs), changes=texts
        )
        if answer != "ok":
            raise AttemptStopped("lost")
        self._state.update(texts)

    def _publish_output(self) -> None:
        """Make the output files of the owner. Every step can be repeated."""
        part, name_of_batch = int(self._state["part"]), public_id(self._job.id)
        files = {}
        for name in NAMES:
            if int(self._state.get(f"{name}_size") or 0):
                id = output_file_id(self._job.id, name)
                self._services.files.adopt(
                    self._output.path(name, part),
                    id,
                    self._job.owner,
                    filename=f"{name_of_batch}_{name}.jsonl",
                    purpose="batch_output",
                    expires_seconds=int(self._state["output_seconds"]),
                )
                files[f"{name}_file"] = id
        self._note({**files, "phase": "ended"})

    def _report_progress(self) -> None:
        now = time.monotonic()
        if now >= self._progress_at:
            self._progress_at = now + PROGRESS_SECONDS
            done = self._counts["completed"] + self._counts["failed"]
            self._attempt.report_progress("running", done, len(self._index), "requests")

    def _stop_reason(self) -> StopReason | None:
        try:
            self._attempt.raise_if_stopped()
        except AttemptStopped as stop:
            return stop.reason
        return None

    def _is_cancelled(self) -> bool:
        # A batch that was cancelled while no worker had it comes with the request, which its first renewal would tell.
        return self._job.cancel_requested_at is not None or self._stop_reason() == "cancel"

    def _raise_if_interrupted(self) -> None:
        """Raise AttemptStopped unless the attempt may go on. One that is cancelled goes on, to close its output."""
        if self._stop_reason() not in (None, "cancel"):
            self._attempt.raise_if_stopped()


class Todo:
    """Requests that are not submitted, in the order in which they run."""

    def __init__(self, numbers: "array[int]") -> None:
        self._numbers = numbers
        self._next = 0

    def has_more(self) -> bool:
        return self._next < len(self._numbers)

    def first(self) -> int | None:
        return self._numbers[self._next] if self.has_more() else None

    def drop_first(self) -> None:
        self._next += 1

    def put_back(self, number: int) -> None:
        """Run a request last that was dropped."""
        self._numbers.append(number)

    def take(self, count: int) -> list[int]:
        """Remove and return the first of them."""
        taken = self._numbers[self._next : self._next + count].tolist()
        self._next += len(taken)
        return taken
