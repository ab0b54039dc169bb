"""Filters of jobs: which ones a list, a count or an action is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.ids import JOB, time_prefix
from shared.jobs.job_rights import JobRights
from shared.jobs.models import Job


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """What a job must have; None and empty values mean anything.

    ``collection`` is an id. ``text`` is part of the summary, in any case. ``since_ms`` and ``until_ms`` (Unix milliseconds) are compared with
    the time in the job's id. Ages are in seconds since its submission. ``rights`` leaves out jobs that a key may not see.
    """

    job: str | None = None
    owner: str | None = None
    statuses: tuple[str, ...] = ()
    kind: str | None = None
    model: str | None = None
    collection: str | None = None
    batch: str | None = None
    queue: str | None = None
    text: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    since_ms: int | None = None
    until_ms: int | None = None
    older_than: float | None = None
    newer_than: float | None = None
    rights: JobRights | None = None

    @property
    def reads_records(self) -> bool:
        """Whether the index alone cannot tell which jobs match."""
        return bool(
            self.job
            or self.queue
            or self.text
            or self.metadata
            or (self.collection and self.batch)
            or self.older_than is not None
            or self.newer_than is not None
            or self.rights is not None
        )

    @property
    def uses_groups(self) -> bool:
        """Whether the groups of the index narrow the search."""
        return bool(self.statuses or self.kind or self.collection or self.batch) or self.model is not None

    @property
    def first_id(self) -> str:
        """All matching ids are at or after this one, in the order of ids."""
        return f"{JOB}_{time_prefix(self.since_ms)}" if self.since_ms is not None else ""

    @property
    def end_id(self) -> str:
        """Upper bound, exclusive, of the ids that match; "" without a bound."""
        return f"{JOB}_{time_prefix(self.until_ms)}" if self.until_ms is not None else ""

    def matches_group(self, status: str, kind: str, model: str) -> bool:
        """Whether jobs of this status, kind and model pass."""
        return (not self.statuses or status in self.statuses) and self.kind in (None, kind) and self.model in (None, model)

    def matches(self, job: Job, now_ms: int) -> bool:
        """Whether a job passes the filter at this time."""
        age = (now_ms - job.created_at) / 1000
        return (
            self.matches_group(job.status, job.kind, job.model)
            and self.job in (None, job.id)
            and self.owner in (None, job.owner)
            and self.queue in (None, job.queue)
            and self.batch in (None, job.parent)
            and self.collection in (None, job.collection)
            and (not self.text or self.text.casefold() in job.summary.casefold())
            and all(str(job.metadata.get(name)) == value for name, value in self.metadata.items())
            and job.id >= self.first_id
            and (not self.end_id or job.id < self.end_id)
            and (self.older_than is None or age > self.older_than)
            and (self.newer_than is None or age < self.newer_than)
            and (self.rights is None or self.rights.allows(job))
        )
