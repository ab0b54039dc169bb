"""Jobs, and the result of each kind."""

from typing import Literal

from pydantic import Field

from api.schemas.responses.base import Answer, Error, JobId, Kind, Page, Time
from api.schemas.responses.search import Hit
from shared.jobs.models import Outcome, Status


class Attempt(Answer):
    """One try of a worker at a job."""

    number: int
    worker: str
    queue: str
    started_at: Time
    ended_at: Time | None
    outcome: Outcome | None = Field(description="null while it runs")
    error: str | None = Field(description="the code of the error that it met")


class Progress(Answer):
    phase: str
    done: int
    total: int = Field(description="0 while it is not known")
    unit: str = Field(examples=["pages"])


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Citation(Answer):
    """A passage that the model was given."""

    marker: str = Field(examples=["[1]"])
    document_id: str
    document: str = Field(description="the name of the file")
    page: int = Field(description="from 1")
    start: int = Field(description="first character on the page")
    end: int
    quote: str


class Generation(Answer):
    """The result of a job of kind ``generate``."""

    text: str
    finish_reason: Literal["stop", "length"]
    usage: Usage
    citations: list[Citation] = Field(default=[], description="only when it was asked with a collection")


class Ingestion(Answer):
    """The result of a job of kind ``ingest``."""

    document_id: str
    status: Literal["ready"]
    pages: int
    chunks: int
    reason: str | None
    timings: dict[str, float] = Field(description="seconds of each step")


class Hits(Answer):
    """The result of a job of kind ``search``."""

    hits: list[Hit]


class Deletion(Answer):
    """The result of a job of kind ``delete``."""

    deleted: Literal[True]
    documents: int = 0
    chunks: int = Field(default=0, description="of the deletion of one chunk")


class Reindexing(Answer):
    """The result of a job of kind ``reindex``."""

    documents: int
    chunks: int
    skipped: list[str] = Field(description="documents whose pages are lost; upload them again")
    embedding_model: str
    embedding_revision: str


class Member(Answer):
    """A member of an archive."""

    name: str


class Skipped(Member):
    reason: str = Field(description="why it was left out")


class EnteredMember(Member):
    document_id: str = Field(description="the document that its bytes are")


class Unpacking(Answer):
    """The result of a job of kind ``unpack``."""

    name: str = Field(description="of the archive")
    documents: int
    members: list[EnteredMember] = Field(description="the first thousand of them")
    duplicates: int = Field(description="members whose bytes were in the collection already")
    duplicate_members: list[EnteredMember] = Field(description="the first thousand of them")
    skipped: int = Field(description="members that were left out")
    skipped_members: list[Skipped] = Field(description="the first thousand of them")


class Counts(Answer):
    """The documents of a batch, an archive counting as one until it is unpacked; also its result."""

    total: int
    completed: int
    failed: int
    cancelled: int
    expired: int


class Timings(Answer):
    """Seconds from submission."""

    queued: float | None = Field(description="until the first claim")
    first_token: float | None
    total: float | None


class Urls(Answer):
    self_: str = Field(alias="self")
    events: str
    cancel: str


class EstimatedWait(Answer):
    """Seconds until its turn; nine waits in ten lie between ``low`` and ``high``."""

    seconds: float
    low: float
    high: float


class Job(Answer):
    """A generation, an ingest, a search, a deletion, a reindex, or a batch of them."""

    id: JobId
    object: Literal["job"]
    kind: Kind
    status: Status = Field(description="the last four are final")
    phase: str = Field(description="finer than the status, for people")
    phase_at: Time
    model: str | None
    priority: int = Field(description="0 goes first, 9 last")
    created_at: Time
    started_at: Time | None
    ended_at: Time | None
    expires_at: Time
    cancel_requested_at: Time | None
    progress: Progress | None
    attempts: list[Attempt]
    metadata: dict[str, str]
    result: Generation | Ingestion | Hits | Deletion | Reindexing | Unpacking | Counts | None = Field(
        description="of a completed job"
    )
    error: Error | None = Field(description="of a failed job")
    heartbeat_at: Time | None = Field(description="when its worker last said that it runs")
    batch: str | None = Field(description="the batch that it belongs to")
    retry_of: str | None = Field(description="the job that it does again")
    timings: Timings
    urls: Urls
    session: str = Field(default="", description="only with a chat")
    counts: Counts | None = Field(default=None, description="only of a batch")
    sealed: bool = Field(default=False, description="only of a batch: no more jobs will join it")
    queue_position: int | None = Field(default=None, description="only while queued: 1 is next")
    estimated_wait: EstimatedWait | None = Field(default=None, description="only while queued; null while it is not known")
    not_before: Time | None = Field(default=None, description="only while queued")
    waiting_for: Literal[
        "worker", "fair_share", "model_loading", "gpu_busy", "model_not_loaded", "retry_backoff", "previous_turn", ""
    ] = Field(default="", description="only while queued")
    response: str = Field(default="", description="the text of a completed generation, under the guide's name")
    context_used: bool = Field(default=False, description="of a completed generation: whether it has citations")


class DeadJob(Job):
    owner: str


class Dropped(Answer):
    id: JobId
    object: Literal["job"]
    removed: Literal[True]


class JobList(Page[Job]):
    pass


class DeadJobList(Page[DeadJob]):
    pass
