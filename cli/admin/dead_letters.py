"""``enginehouse dead-letters``: list, show, replay and drop jobs that lost all their attempts."""

from dataclasses import asdict

import redis

from cli.errors import CommandError
from cli.output import Output, clock
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.models import AttemptRecord, Job
from shared.jobs.queries import JobQueries
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.settings import Settings

MAX_LISTED = 1000


class DeadLetters:
    """The dead letters in the stack's Redis."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        wake = CeleryBroker(client).wake
        self._submitter = JobSubmitter(client, settings, wake)
        self._transitions = JobTransitions(client, settings, wake)
        self._queries = JobQueries(client)

    def print_all(self, out: Output) -> None:
        """Print the dead letters, newest first."""

        def row(job: Job) -> tuple[object, ...]:
            return (
                job.id,
                job.kind,
                job.owner,
                _time(job.ended_at),
                len(job.attempts),
                job.attempts[-1].worker if job.attempts else "",
            )

        columns = ("job", "kind", "owner", "failed", "attempts", "last worker")
        out.print_list(columns, self._queries.dead_letters(MAX_LISTED), row, to_json=_plain)

    def print_one(self, job: str, out: Output) -> None:
        """Print one dead letter without its prompt and result, which belong to its owner."""
        letter = self._find(job)
        error = letter.error or {}
        rows: list[tuple[str, object]] = [
            ("job", letter.id),
            ("kind", letter.kind),
            ("owner", letter.owner),
            ("end user", letter.end_user),
            ("model", letter.model),
            ("document", letter.document),
            ("queue", letter.first_queue or letter.queue),
            ("created", _time(letter.created_at)),
            ("started", _time(letter.started_at)),
            ("failed", _time(letter.ended_at)),
            ("error", f"{error.get('message', '')} ({error.get('code', '')})" if error else ""),
            ("retry of", letter.retry_of),
            ("retried as", letter.retried_as),
            *((f"attempt {attempt.number}", _attempt_text(attempt)) for attempt in letter.attempts),
        ]
        out.print_record(letter, rows, to_json=_plain)

    def replay(self, job: str) -> None:
        """Run the job again, as a new job."""
        print(f"{job} runs again as {self._submitter.replay(self._find(job)).id}")

    def drop(self, job: str) -> None:
        """Remove the job from the dead letters."""
        self._transitions.remove_dead_letter(self._find(job).id)
        print(f"Removed {job} from the dead letters. Its record is kept until its retention period ends.")

    def _find(self, job: str) -> Job:
        letter = self._queries.get_dead_letter(job)
        if letter is None:
            raise CommandError(f"Job {job} is not a dead letter: `enginehouse dead-letters list` shows them.")
        return letter


def _time(time_ms: int | None) -> str:
    return clock(None if time_ms is None else time_ms / 1000)


def _attempt_text(attempt: AttemptRecord) -> str:
    end = f"{attempt.outcome or 'running'} {_time(attempt.ended_at)}".rstrip()
    return f"{attempt.worker}, {_time(attempt.started_at)}: {end}" + (f" ({attempt.error})" if attempt.error else "")


def _plain(job: Job) -> dict[str, object]:
    private = {"spec", "context", "result", "webhook"}
    return {name: value for name, value in asdict(job).items() if name not in private and value not in (None, "", {})}
