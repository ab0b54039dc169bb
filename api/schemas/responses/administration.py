"""Response models of the calls of administrators on jobs, queues and workers."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.envelopes import ListPage, ResponseModel
from api.schemas.responses.fields import Time
from api.schemas.responses.jobs import ListedJob, WaitingFor


class AdminJob(ListedJob):
    owner: str
    queue: str | None = Field(description="null for a batch")


class AdminJobList(ListPage[AdminJob]):
    pass


class JobActionResult(ResponseModel):
    """The outcome of an action on the jobs that match a filter."""

    object: Literal["job_action"]
    action: Literal["cancel", "retry", "delete"]
    dry_run: bool
    matched: int = Field(description="jobs that matched the filter")
    done: int = Field(description="jobs that were changed")
    refused: dict[str, int] = Field(description="number of the others by error code")
    next: str | None = Field(description="`after` of the next call; null if no further job can match")


class QueueOwner(ResponseModel):
    """An owner with jobs in a queue."""

    owner: str
    waiting: int
    end_users: int = Field(description="end users who have some of these jobs")
    oldest_seconds: float = Field(description="since the submission of the oldest job")
    service: float = Field(description="tokens received in this queue, divided by the owner's weight; the lowest comes first")
    waiting_for: WaitingFor


class Queue(ResponseModel):
    queue: str = Field(examples=["gpu.gemma-3-270m"])
    object: Literal["queue"]
    model: str | None
    waiting: int = Field(description="jobs that could be claimed")
    oldest_seconds: float | None = Field(description="since the submission of the oldest of them")
    waiting_for: WaitingFor = Field(description="what keeps the first of them from running; empty if none waits")
    paused_at: Time | None = Field(description="since when nothing is claimed; null if it is not paused")
    workers: int = Field(description="live workers that serve it")
    slots: int = Field(description="jobs that they can run at once")
    running: int = Field(description="jobs that they run now")
    owners: list[QueueOwner]


class QueueList(ListPage[Queue]):
    pass


class Owner(ResponseModel):
    """The weight and the limits of an owner."""

    object: Literal["owner"]
    owner: str = Field(examples=["local"])
    weight: float
    limits: dict[str, int] = Field(description="limits set for this owner; 0 means no limit")
    effective_limits: dict[str, int] = Field(description="every limit; the rest come from the settings")


class OwnerList(ListPage[Owner]):
    pass


class Worker(ResponseModel):
    """A process that runs jobs."""

    id: str = Field(examples=["gpu0@vm/4711"])
    object: Literal["worker"]
    name: str
    pool: Literal["gpu", "cpu", "io"]
    queues: list[str]
    model: str | None
    state: Literal["loading", "warming", "ready", "failed", "draining", "unloaded"]
    reason: str | None
    slots: int
    running: int
    idle_seconds: float
    since: Time = Field(description="time of its first heartbeat")
    seen_at: Time = Field(description="time of its latest heartbeat")
    version: str | None = Field(description="of its code; null if it is not installed as a package")
    drained_at: Time | None = Field(description="since when it claims nothing; null if it is not drained")


class WorkerList(ListPage[Worker]):
    pass
