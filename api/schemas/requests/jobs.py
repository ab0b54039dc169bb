"""Request models of calls on jobs and batches."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from api.schemas.requests.fields import JobMetadata, NotBefore, RequestModel
from api.schemas.requests.webhooks import JobWebhook
from api.schemas.responses.fields import JobKind
from shared.ids import JOB, is_id
from shared.jobs.start_time import DESCRIPTION as START_TIME
from shared.jobs.start_time import describe_start_time

# Jobs that one call may change.
MAX_ACTION_JOBS = 1000

StatusName = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
FilterText = Annotated[str, StringConstraints(min_length=1, max_length=120)]


def _check_job_id(value: str) -> str:
    if not is_id(JOB, value):
        raise ValueError("must be the id of a job")
    return value


JobId = Annotated[str, StringConstraints(max_length=80), AfterValidator(_check_job_id)]


class NewBatch(RequestModel):
    """An open batch, which jobs join later."""

    webhook: JobWebhook | None = None
    metadata: JobMetadata = Field(default={}, max_length=16, description="returned with the job")
    not_before: NotBefore | None = Field(
        default=None,
        description=f"when its jobs may start at the earliest: {START_TIME}",
        json_schema_extra=describe_start_time,
    )


class RetryRequest(RequestModel):
    password: SecretStr | None = Field(default=None, description="of a document that ended as `encrypted`")


class JobSelection(RequestModel):
    """What a job must have, as in `GET /jobs`."""

    status: StatusName | list[StatusName] | None = Field(default=None, description="one, or several of which a job has one")
    kind: JobKind | None = None
    model: FilterText | None = None
    collection: FilterText | None = Field(default=None, description="its name")
    batch: JobId | None = None
    q: FilterText | None = Field(default=None, description="text in the summary")
    since: float | None = Field(default=None, ge=0, le=1e10, description="Unix seconds")
    until: float | None = Field(default=None, ge=0, le=1e10, description="Unix seconds")
    metadata: JobMetadata = Field(default={}, max_length=4)

    @property
    def statuses(self) -> tuple[str, ...]:
        """The statuses; empty for any."""
        return (self.status,) if isinstance(self.status, str) else tuple(self.status or ())


class JobsAction(RequestModel):
    """An action on jobs of the caller: those with ``ids``, or those that match ``filter``."""

    action: Literal["cancel", "retry", "delete"]
    ids: list[Annotated[str, StringConstraints(max_length=80)]] | None = Field(
        default=None, min_length=1, max_length=MAX_ACTION_JOBS
    )
    filter: JobSelection | None = Field(default=None, description="an empty one matches every job")
    limit: int = Field(
        default=MAX_ACTION_JOBS, ge=1, le=MAX_ACTION_JOBS, description="with `filter`: jobs to change in this call"
    )
    after: JobId | None = Field(default=None, description="with `filter`: the `next` of the previous call")

    @model_validator(mode="after")
    def _check_one_selection(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give exactly one of ids and filter")
        if self.after is not None and self.ids is not None:
            raise ValueError("after: continues a call with filter, not with ids")
        return self
