"""Records that the server returns. Times are Unix seconds.

Each record keeps the complete JSON in ``raw``, so that fields of a newer server are available and break nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from enginehouse_client.errors import EnginehouseError, JobFailed

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base class of the records."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Create the record from the JSON of the server."""
        return cls(raw=value, **{field.name: value.get(field.name) for field in fields(cls) if field.name != "raw"})


@dataclass(frozen=True, kw_only=True)
class Attempt(Record):
    """One attempt of a worker to run a job; ``outcome`` is None while it runs."""

    number: int
    worker: str
    queue: str
    started_at: float
    ended_at: float | None
    outcome: str | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Citation(Record):
    """A passage that was given to the model: characters ``start`` to ``end`` of a page; pages count from 1. ``source`` is ``ocr`` if
    some of it was read from a picture, with this ``confidence``. ``cited`` says whether the answer names it, and ``support`` is the part
    of the words of the sentences that do so which the quote contains."""

    marker: str
    document_id: str
    document: str
    page: int
    start: int
    end: int
    quote: str
    source: str = "text"
    confidence: float | None = None
    cited: bool | None = None
    support: float | None = None


@dataclass(frozen=True, kw_only=True)
class Hit(Record):
    """A passage found by a search. The meaning of ``score`` depends on the search mode; higher is better. ``rerank_score`` is the
    reranker's score, which orders the hits, or None. ``explain`` has ranks and scores in each list, if the search asked for them."""

    document_id: str
    document: str
    page: int
    start: int
    end: int
    text: str
    score: float
    source: str = "text"
    confidence: float | None = None
    rerank_score: float | None = None
    explain: Mapping[str, Any] | None = None


class SearchHits(list[Hit]):
    """The hits of a search, best first. ``warnings`` say why some may be missing, or why they were not reranked; ``explain`` has how many
    chunks each step had and removed, if the search asked for it."""

    def __init__(
        self, hits: Iterable[Mapping[str, Any]], *, warnings: Iterable[str] = (), explain: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(Hit.from_json(hit) for hit in hits)
        self.warnings = list(warnings)
        self.explain = explain


@dataclass(frozen=True, kw_only=True)
class Job(Record):
    """A snapshot of a job; ``queue_position`` and ``waiting_for`` are set while it is queued. In lists ``result`` is None."""

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
    summary: str | None
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
        return [Attempt.from_json(attempt) for attempt in self.raw["attempts"]]

    @property
    def text(self) -> str:
        """The generated text. Raises JobFailed as ``completed`` does."""
        return str(self.completed().get("text", ""))

    @property
    def citations(self) -> list[Citation]:
        """The passages that were given to the model. Raises JobFailed as ``completed`` does."""
        return [Citation.from_json(citation) for citation in self.completed().get("citations", ())]

    @property
    def grounded(self) -> bool | None:
        """Whether the model was given a passage; None if there was no collection. Raises JobFailed as ``completed`` does."""
        value = self.completed().get("grounded")
        return None if value is None else bool(value)

    def completed(self) -> Mapping[str, Any]:
        """The result. Raises JobFailed if the job ended otherwise, EnginehouseError if it has not ended."""
        if not self.ended:
            raise EnginehouseError(f"job {self.id} has not ended (status {self.status}); wait for it first")
        if self.status != "completed" or self.result is None:
            error = self.error or {"code": self.status, "message": f"job {self.id} is {self.status}"}
            raise JobFailed(
                str(error["message"]), job=self.id, status=self.status, code=str(error["code"]), param=error.get("param")
            )
        return self.result


@dataclass(frozen=True, kw_only=True)
class JobCounts(Record):
    """Numbers of jobs. Without ``complete``, only the newest jobs were counted, because a filter has to read each of them."""

    status: Mapping[str, int]
    kind: Mapping[str, int]
    model: Mapping[str, int]
    total: int
    complete: bool


@dataclass(frozen=True, kw_only=True)
class DocumentCounts(Record):
    """Numbers of documents of a collection by status."""

    status: Mapping[str, int]
    total: int


@dataclass(frozen=True, kw_only=True)
class ActionFailure(Record):
    """A job to which an action did not apply, and why."""

    id: str
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class RequestBatch(Record):
    """A batch of requests from a file; ``request_counts`` has ``total``, ``completed`` and ``failed``. ``errors`` says why a batch has failed.
    ``job_id`` is its job, whose events report its progress."""

    id: str
    endpoint: str
    model: str | None
    status: str
    completion_window: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    errors: Mapping[str, Any] | None
    request_counts: Mapping[str, int]
    usage: Mapping[str, Any]
    metadata: Mapping[str, str] | None
    created_at: int
    estimated_end_at: int | None
    job_id: str

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True, kw_only=True)
class Document(Record):
    """A document; ``reason`` is set if it is not, or only partly, searchable. ``job_id`` is the job that indexes it. ``url`` is where the
    server fetched it, if it did, and ``same_text_as`` the id of another document that had the same words when it became ready.
    ``version`` counts the documents with this name, and ``replaces`` is the id of the one whose place it takes, if there is one."""

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
    version: int
    replaces: str | None
    url: str | None
    same_text_as: str | None


@dataclass(frozen=True, kw_only=True)
class PageText(Record):
    """The text of a page. ``boxes`` say where it is on the page: each has ``start`` and ``end`` in the text, and ``x``, ``y``, ``width``
    and ``height`` as fractions of the page, from its top left corner. ``width`` and ``height`` of the page are in points, and None for
    formats without pages."""

    page: int
    width: float | None
    height: float | None
    text: str
    boxes: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class NameConflict(Record):
    """A file that was not added, because the document ``document_id`` has its name and was not to be replaced."""

    name: str
    document_id: str


@dataclass(frozen=True, kw_only=True)
class Archive(Record):
    """An archive, whose members become documents; ``job`` is the id of the job that unpacks it."""

    name: str
    job: str


@dataclass(frozen=True, kw_only=True)
class UrlFetch(Record):
    """A URL that the server fetches; ``job`` is the id of the job that does it, whose result names what it became."""

    url: str
    job: str


@dataclass(frozen=True, kw_only=True)
class Collection(Record):
    """A collection; ``documents`` is their number. ``chunk_tokens``, ``chunk_overlap_tokens`` and ``ocr_languages`` are None if they are
    those of the server."""

    id: str
    name: str
    embedding_model: str
    created_at: float
    documents: int
    chunk_tokens: int | None
    chunk_overlap_tokens: int | None
    ocr_languages: list[str] | None


@dataclass(frozen=True, kw_only=True)
class Webhook(Record):
    """A registered webhook. ``secret`` is only set when the webhook is created or its secret is rotated; ``disabled_reason`` is the
    reason why it is not ``enabled``."""

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
class ApiKey(Record):
    """An API key; None in ``models`` and ``collections`` stands for all. ``secret`` is only set when the key is created or rotated."""

    id: str
    name: str
    owner: str
    prefix: str | None
    scopes: list[str]
    models: list[str] | None
    collections: list[str] | None
    requests_per_second: int | None
    limits: Mapping[str, int]
    secret: str | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    successor_of: str | None
    from_file: bool


@dataclass(frozen=True, kw_only=True)
class DeliveryAttempt(Record):
    """One attempt to send a delivery; ``answer`` is the first 1 kB of the response, ``latency`` is in seconds."""

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
    """One event for one address; ``webhook`` is the id of the registered webhook, if any."""

    id: str
    event: str
    job: str
    webhook: str | None
    url: str
    status: Literal["pending", "delivered", "failed"]
    reason: str | None
    created_at: float
    next_attempt_at: float | None
    ended_at: float | None

    @property
    def attempts(self) -> list[DeliveryAttempt]:
        return [DeliveryAttempt.from_json(item) for item in self.raw["attempts"]]


@dataclass(frozen=True, kw_only=True)
class Model(Record):
    """A model of the server; ``state`` is ``ready``, ``warming``, ``loading``, ``draining``, ``failed``, ``unloaded`` or
    ``not_served``."""

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
class ChatEntry(Record):
    """A chat in the list of chats. ``turns`` counts those of all branches."""

    id: str
    title: str
    created_at: float
    updated_at: float
    turns: int


@dataclass(frozen=True, kw_only=True)
class ChatTurn(Record):
    """A message of a chat and its answer.

    ``id`` is that of the job. ``parent`` is the turn before it, and ``siblings`` are all turns after the same one, oldest first.
    ``answer`` is None while the job runs, and what was written of it if the turn failed or was stopped.
    """

    id: str
    parent: str | None
    siblings: list[str]
    status: Status
    message: str
    answer: str | None
    model: str
    created_at: float


@dataclass(frozen=True, kw_only=True)
class Health(Record):
    """Whether the server can run every kind of job, and what it waits for if not."""

    status: Literal["ready", "not_ready"]
    waiting_for: list[str]

    @property
    def ready(self) -> bool:
        return self.status == "ready"


@dataclass(frozen=True, kw_only=True)
class Attention(Record):
    """One thing that needs attention. ``subject`` is the kind of object (``object``) and its ``id`` or name, if it is about one."""

    code: str
    message: str
    subject: Mapping[str, str] | None


@dataclass(frozen=True, kw_only=True)
class OperationsOverview(Record):
    """The queues, the live workers, the gpu workers with their models, and the newest hundred dead letters."""

    queues: list[Mapping[str, Any]]
    workers: list[Mapping[str, Any]]
    gpus: list[Mapping[str, Any]]
    dead_letters: list[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Stats(Record):
    """What queues, GPUs and workers did in the last minutes: a list of values for each interval, the newest last.

    A value is None where nothing was recorded. ``totals``, ``workers`` and ``links`` are None for callers who are not administrators.
    """

    start: float
    interval_seconds: int
    intervals: int
    totals: Mapping[str, list[float | None]] | None
    queues: list[Mapping[str, Any]]
    gpus: list[Mapping[str, Any]]
    workers: Mapping[str, list[float | None]] | None
    links: Mapping[str, str | None] | None


@dataclass(frozen=True, kw_only=True)
class UsageReport(Record):
    """Usage from one day to another, inclusive (UTC).

    ``data`` has an entry for each group: the values that it is grouped by, and the numbers ``jobs``, ``prompt_tokens``, ``cached_tokens``,
    ``completion_tokens``, ``embedding_tokens``, ``gpu_seconds``, ``lost_seconds``, ``pages`` and ``bytes``. ``total`` has their sums.
    """

    since: str
    until: str
    group_by: list[str]
    data: list[Mapping[str, Any]]
    total: Mapping[str, float]


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
    """Progress of an ingest, in files. ``ended`` counts files in any final state, ``failed`` those that are not searchable. An
    archive counts as one of ``files`` until it is unpacked, and then as its members; in ``uploaded`` it always counts as one."""

    files: int
    uploaded: int
    ended: int
    failed: int


@dataclass(frozen=True)
class UploadProgress:
    """How many of the ``size`` bytes of a file were sent."""

    sent: int
    size: int


@dataclass(frozen=True)
class UploadReceipt:
    """What the server accepted: documents, archives, and the batch of their jobs. ``joined``: the batch is an open one that also
    has other jobs. ``name_conflicts`` are the files that it did not add."""

    collection: str
    documents: list[Document]
    archives: list[Archive]
    batch: Job
    joined: bool = False
    name_conflicts: list[NameConflict] = field(default_factory=list)

    @property
    def conflicts(self) -> "list[Rejection]":
        """The files that were not added."""
        return [
            Rejection(None, "name_taken", f"the collection has another file of this name, {conflict.document_id}", conflict.name)
            for conflict in self.name_conflicts
        ]


@dataclass(frozen=True)
class Rejection:
    """A file that is not searchable: ``code`` is its final status, such as ``needs_ocr``, and ``reason`` a sentence.

    ``document`` is None if no document exists: for an archive that could not be unpacked, for a member that was ``left_out``, for a file
    that was not to replace another (``name_taken``), and for a document that was deleted in the meantime."""

    document: Document | None
    code: str
    reason: str
    name: str


@dataclass(frozen=True)
class Duplicate:
    """A member of an archive whose bytes the collection already had, and the document with these bytes."""

    name: str
    document: Document


@dataclass(frozen=True)
class Ingestion:
    """The result of an ingest: a document for each file and each archive member (identical bytes are one document), the id of the
    batch, the files that are not searchable, and the archive members that the collection already had. Of each archive, the first
    thousand duplicates are listed and ``more_duplicates`` counts the others. Without waiting, archives are not listed and
    ``rejected`` is empty."""

    documents: list[Document]
    batch: str
    rejected: list[Rejection]
    duplicates: list[Duplicate] = field(default_factory=list)
    more_duplicates: int = 0
