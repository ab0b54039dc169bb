"""What the server tells of jobs, documents, collections and models. Times are Unix seconds.

Each record keeps the whole JSON as ``raw``: what a newer server adds is there, and breaks nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from enginehouse_client.errors import EnginehouseError, JobFailed

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]


@dataclass(frozen=True, kw_only=True)
class Record:
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """From the server's JSON."""
        return cls(raw=told, **{item.name: told.get(item.name) for item in fields(cls) if item.name != "raw"})


@dataclass(frozen=True, kw_only=True)
class Attempt(Record):
    """One try of a worker at a job; ``outcome`` is None while it runs."""

    number: int
    worker: str
    queue: str
    started_at: float
    ended_at: float | None
    outcome: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Citation(Record):
    """A passage that the model was given: characters ``start`` to ``end`` of a page, which count from 1."""

    marker: str
    document_id: str
    document: str
    page: int
    start: int
    end: int
    quote: str


@dataclass(frozen=True, kw_only=True)
class Hit(Record):
    """A passage that a search found; what ``score`` means depends on the mode, and higher is better."""

    document_id: str
    document: str
    page: int
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Job(Record):
    """A job as it stood when it was read; ``queue_position`` and ``waiting_for`` are told while it is queued."""

    id: str
    kind: str
    status: Status
    phase: str
    model: str | None
    priority: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    cancel_requested_at: float | None
    progress: Mapping[str, Any] | None
    metadata: Mapping[str, str]
    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    batch: str | None
    retry_of: str | None
    queue_position: int | None
    waiting_for: str | None
    counts: Mapping[str, int] | None

    @property
    def ended(self) -> bool:
        return self.status not in ("queued", "in_progress")

    @property
    def attempts(self) -> list[Attempt]:
        return [Attempt.read(attempt) for attempt in self.raw["attempts"]]

    @property
    def text(self) -> str:
        """What the model wrote. Raises JobFailed as ``completed`` does."""
        return str(self.completed().get("text", ""))

    @property
    def citations(self) -> list[Citation]:
        """The passages that the model was given. Raises JobFailed as ``completed`` does."""
        return [Citation.read(citation) for citation in self.completed().get("citations", ())]

    def completed(self) -> Mapping[str, Any]:
        """The result. Raises JobFailed when it ended otherwise, EnginehouseError when it has not ended."""
        if not self.ended:
            raise EnginehouseError(f"job {self.id} has not ended, it is {self.status}; wait for it first")
        if self.status != "completed" or self.result is None:
            error = self.error or {"code": self.status, "message": f"job {self.id} is {self.status}"}
            raise JobFailed(
                str(error["message"]), job=self.id, status=self.status, code=str(error["code"]), param=error.get("param")
            )
        return self.result


@dataclass(frozen=True, kw_only=True)
class Document(Record):
    """A document; ``reason`` says why it cannot be searched, or not whole. ``job_id`` is the job that reads it."""

    id: str
    collection: str
    name: str
    size: int
    sha256: str
    media_type: str
    status: str
    reason: str | None
    pages: int
    pages_done: int
    chunks: int
    job_id: str
    created_at: float
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class Archive(Record):
    """A file whose members become documents; ``job`` is the job that unpacks it."""

    name: str
    job: str


@dataclass(frozen=True, kw_only=True)
class Collection(Record):
    """A collection; ``documents`` is how many it has."""

    id: str
    name: str
    embedding_model: str
    created_at: float
    documents: int


@dataclass(frozen=True, kw_only=True)
class Webhook(Record):
    """An address that is kept; ``secret`` is told once, when it is made or changed. ``disabled_reason`` says why it is not
    ``enabled``."""

    id: str
    url: str
    events: list[str]
    job_kinds: list[str]
    description: str
    enabled: bool
    disabled_reason: str | None
    secret: str | None
    previous_secret_until: float | None
    created_at: float
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class DeliveryAttempt(Record):
    """One POST of a delivery; ``answer`` is the first 1 kB of what came, ``latency`` in seconds."""

    number: int
    worker: str
    started_at: float
    ended_at: float | None
    outcome: str | None
    status: int | None
    latency: float | None
    answer: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Delivery(Record):
    """One thing that is told to one address; ``webhook`` is the kept one, if it goes to one."""

    id: str
    event: str
    job: str
    webhook: str | None
    url: str
    status: Literal["pending", "delivered", "failed"]
    reason: str | None
    created_at: float
    next_try_at: float | None
    ended_at: float | None

    @property
    def tries(self) -> list[DeliveryAttempt]:
        return [DeliveryAttempt.read(told) for told in self.raw["tries"]]


@dataclass(frozen=True, kw_only=True)
class Model(Record):
    """A model of the server's list; ``state`` is ``ready``, ``warming``, ``loading``, ``failed`` or ``not_served``."""

    name: str
    task: str
    engine: str
    max_context: int | None
    max_tokens: int
    default: bool
    state: str
    reason: str | None
    workers: int


@dataclass(frozen=True, kw_only=True)
class Health(Record):
    """Whether every kind of job can be done, and what is awaited if not."""

    status: Literal["ready", "not_ready"]
    waiting_for: list[str]

    @property
    def ready(self) -> bool:
        return self.status == "ready"


@dataclass(frozen=True)
class Turn:
    """The answer to one message of a chat."""

    text: str
    job: Job

    @property
    def citations(self) -> list[Citation]:
        return self.job.citations


@dataclass(frozen=True)
class IngestProgress:
    """How far an ingest has come, in files. ``ended`` counts those that ended in any way, ``failed`` those that cannot be
    searched. An archive is one of the ``files`` until it is unpacked, and then as many as have come out of it; ``uploaded``
    counts it as one."""

    files: int
    uploaded: int
    ended: int
    failed: int


@dataclass(frozen=True)
class UploadProgress:
    """How much of a file has gone out, in bytes."""

    sent: int
    size: int


@dataclass(frozen=True)
class UploadReceipt:
    """What the server has taken: documents, archives, and the batch over the jobs that read them. ``joined``: an open batch, over
    more than this."""

    collection: str
    documents: list[Document]
    archives: list[Archive]
    batch: Job
    joined: bool = False


@dataclass(frozen=True)
class Rejection:
    """A file that cannot be searched: ``code`` is the status it ended with, such as ``needs_ocr``, and ``reason`` says why.

    ``document`` is None where there is none: of an archive that could not be unpacked, of a member that was ``left_out`` of one,
    and of a document that is gone again."""

    document: Document | None
    code: str
    reason: str
    name: str


@dataclass(frozen=True)
class Duplicate:
    """A member of an archive whose bytes the collection had already, and the document that they are."""

    name: str
    document: Document


@dataclass(frozen=True)
class Ingestion:
    """What became of an ingest: a document for each file (the same bytes are one document) and each member of an archive, the id of
    the batch, the files that cannot be searched, and what of archives was there already (of the first thousand of each; of the
    others only the number). When the ingest was not waited for, nothing is known of archives, and ``rejected`` is empty."""

    documents: list[Document]
    batch: str
    rejected: list[Rejection]
    duplicates: list[Duplicate] = field(default_factory=list)
    more_duplicates: int = 0
