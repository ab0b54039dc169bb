"""Actions on many jobs: cancel, retry or delete those that have some ids or match a filter.

Jobs are visited from the newest to the oldest, a limited number in each call, which returns where the next one continues.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from shared.errors import EnginehouseError
from shared.ids import JOB, is_id
from shared.jobs.job_actions import JobActions, job_not_found
from shared.jobs.job_filter import JobFilter
from shared.jobs.models import Job
from shared.jobs.queries import JobQueries, JobVisit

# How many jobs one call looks at, so that it takes about a second.
MAX_SCANNED = 10_000

Action = Literal["cancel", "retry", "delete"]


@dataclass(frozen=True)
class Refusal:
    """A job to which an action does not apply, and why."""

    job: str
    error: EnginehouseError


@dataclass
class Outcome:
    """What became of the jobs of an action. ``next`` continues the visit."""

    matched: int = 0
    done: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    next: str | None = None

    def count_refusals(self) -> Counter[str]:
        """The number of refusals by error code."""
        return Counter(refusal.error.code for refusal in self.refusals)


class JobAdministration:
    """Reads and changes many jobs of one Redis at once."""

    def __init__(self, queries: JobQueries, actions: JobActions) -> None:
        self._queries = queries
        self._actions = actions

    def count_jobs(self, wanted: JobFilter, *, after: str | None = None) -> Outcome:
        """Count matching jobs and change nothing."""
        visit = JobVisit(self._queries, wanted, after, MAX_SCANNED)
        matched = sum(1 for _ in visit)
        return Outcome(matched=matched, next=visit.next)

    def change_matching(self, action: Action, wanted: JobFilter, *, limit: int, after: str | None = None) -> Outcome:
        """Cancel, retry or delete up to ``limit`` matching jobs. Completed jobs, and those that were retried before, are not retried."""
        outcome, last = Outcome(), None
        visit = JobVisit(self._queries, wanted, after, MAX_SCANNED)
        for job in visit:
            if outcome.matched == limit:
                outcome.next = last
                return outcome
            last = job.id
            self._change(action, [job], outcome)
        outcome.next = visit.next
        return outcome

    def change_jobs(
        self, action: Action, ids: Sequence[str], owner: str, require: Callable[[Job], None] = lambda _: None
    ) -> Outcome:
        """Cancel, retry or delete the jobs of an owner that have these ids, each once. ``require`` raises for those that it must not change."""
        outcome, known = Outcome(), list(dict.fromkeys(ids))
        found = {job.id: job for job in self._queries.read_jobs([id for id in known if is_id(JOB, id)]) if job.owner == owner}
        outcome.refusals = [Refusal(id, job_not_found(id)) for id in known if id not in found]
        self._change(action, [found[id] for id in known if id in found], outcome, require)
        return outcome

    def _change(
        self, action: Action, jobs: Iterable[Job], outcome: Outcome, require: Callable[[Job], None] = lambda _: None
    ) -> None:
        for job in jobs:
            outcome.matched += 1
            try:
                require(job)
                match action:
                    case "cancel":
                        self._actions.cancel(job.id, job.owner)
                    case "retry":
                        self._actions.retry_unfinished(job)
                    case "delete":
                        self._actions.delete(job.id, job.owner)
            except EnginehouseError as error:
                outcome.refusals.append(Refusal(job.id, error))
            else:
                outcome.done += 1
