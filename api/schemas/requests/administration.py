"""Request models of the calls of administrators on jobs, queues and workers."""

from typing import Literal

from pydantic import Field, field_validator

from api.schemas.requests.fields import RequestModel
from shared.ids import JOB, is_id


class FilterOfJobs(RequestModel):
    """What a job must have."""

    job: str | None = Field(default=None, max_length=80, description="id of a single job")
    owner: str | None = Field(default=None, max_length=80)
    queue: str | None = Field(default=None, max_length=120)
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"] | None = None
    kind: (
        Literal[
            "generate",
            "ingest",
            "unpack",
            "search",
            "delete",
            "reindex",
            "batch",
            "embed",
            "rerank",
            "tokenize",
            "draw",
            "request_batch",
        ]
        | None
    ) = None
    model: str | None = Field(default=None, max_length=100)
    older_than: float | None = Field(default=None, ge=0, le=1e9, description="seconds since its submission")
    newer_than: float | None = Field(default=None, ge=0, le=1e9, description="seconds since its submission")

    @field_validator("job")
    @classmethod
    def check_job(cls, value: str | None) -> str | None:
        if value is not None and not is_id(JOB, value):
            raise ValueError("must be the id of a job")
        return value


class JobAction(RequestModel):
    filter: FilterOfJobs
    dry_run: bool = Field(default=False, description="count the jobs and change nothing")
    limit: int = Field(default=500, ge=1, le=1000, description="maximum number of jobs to change in this call")
    after: str | None = Field(default=None, max_length=80, description="the `next` of the previous call")

    @field_validator("after")
    @classmethod
    def check_after(cls, value: str | None) -> str | None:
        if value is not None and not is_id(JOB, value):
            raise ValueError("must be the id of a job")
        return value


class QueuePause(RequestModel):
    paused: bool
    unload: bool = Field(default=False, description="also unload the model of the queue, on every worker")


class WorkerDrain(RequestModel):
    drained: bool = True
