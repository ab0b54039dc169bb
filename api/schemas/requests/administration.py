"""Request models of the calls of administrators on jobs, queues and workers."""

from typing import Annotated

from pydantic import Field

from api.schemas.requests.fields import RequestModel
from api.schemas.requests.jobs import JobId, StatusName
from api.schemas.responses.fields import JobKind
from shared.owners.limits import HIGHEST
from shared.settings import OWNER_LIMITS


class FilterOfJobs(RequestModel):
    """What a job must have."""

    job: JobId | None = Field(default=None, description="id of a single job")
    owner: str | None = Field(default=None, max_length=80)
    queue: str | None = Field(default=None, max_length=120)
    status: StatusName | list[StatusName] | None = Field(default=None, description="one, or several of which a job has one")
    kind: JobKind | None = None
    model: str | None = Field(default=None, max_length=201)
    batch: JobId | None = None
    older_than: float | None = Field(default=None, ge=0, le=1e9, description="seconds since its submission")
    newer_than: float | None = Field(default=None, ge=0, le=1e9, description="seconds since its submission")


class JobAction(RequestModel):
    filter: FilterOfJobs
    dry_run: bool = Field(default=False, description="count the jobs and change nothing")
    limit: int = Field(default=500, ge=1, le=1000, description="maximum number of jobs to change in this call")
    after: JobId | None = Field(default=None, description="the `next` of the previous call")


class OwnerChange(RequestModel):
    """Changes to an owner; omitted fields stay unchanged."""

    weight: float | None = Field(
        default=None, ge=0.01, le=100, description="share of a full queue relative to other owners, 1 at first"
    )
    limits: dict[str, Annotated[int, Field(ge=0, le=HIGHEST)] | None] | None = Field(
        default=None,
        max_length=len(OWNER_LIMITS),
        description=f"values by name: {', '.join(OWNER_LIMITS)}. 0 means no limit, null resets to the setting",
    )


class QueuePause(RequestModel):
    paused: bool
    unload: bool = Field(default=False, description="also unload the model of the queue, on every worker")


class WorkerDrain(RequestModel):
    drained: bool = True
