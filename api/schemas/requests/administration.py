"""Request models of the calls of administrators on jobs, queues and workers."""

from pydantic import Field

from api.schemas.requests.fields import RequestModel
from api.schemas.requests.jobs import JobId, StatusName
from api.schemas.responses.fields import JobKind


class FilterOfJobs(RequestModel):
    """What a job must have."""

    job: JobId | None = Field(default=None, description="id of a single job")
    owner: str | None = Field(default=None, max_length=80)
    queue: str | None = Field(default=None, max_length=120)
    status: StatusName | list[StatusName] | None = Field(default=None, description="one, or several of which a job has one")
    kind: JobKind | None = None
    model: str | None = Field(default=None, max_length=100)
    batch: JobId | None = None
    older_than: float | None = Field(default=None, ge=0, le=1e9, description="seconds since its submission")
    newer_than: float | None = Field(default=None, ge=0, le=1e9, description="seconds since its submission")


class JobAction(RequestModel):
    filter: FilterOfJobs
    dry_run: bool = Field(default=False, description="count the jobs and change nothing")
    limit: int = Field(default=500, ge=1, le=1000, description="maximum number of jobs to change in this call")
    after: JobId | None = Field(default=None, description="the `next` of the previous call")


class QueuePause(RequestModel):
    paused: bool
    unload: bool = Field(default=False, description="also unload the model of the queue, on every worker")


class WorkerDrain(RequestModel):
    drained: bool = True
