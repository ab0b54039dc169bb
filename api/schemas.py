"""What the answers look like: ``render`` and the calls make them, ``/openapi.json`` describes them by these models.

The server does not validate its own answers; tests hold every answer they get against its model. Field by field this is the
promise to clients, so a test fails when an answer has a field that is not here.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from shared.documents.record import Status as DocumentStatus
from shared.jobs.job import Outcome, Status
from shared.webhooks.endpoints import Event

T = TypeVar("T")

Time = Annotated[float, Field(description="Unix seconds, with milliseconds")]
JobId = Annotated[str, Field(pattern=r"^job_[0-9a-hjkmnp-tv-z]{26}$", examples=["job_01m84stetzyr7esggznw5rdjds"])]
Kind = Literal["generate", "ingest", "search", "delete", "reindex", "unpack", "batch"]


def _open_to_more(schema: dict[str, Any]) -> None:
    # Tests refuse a field that is not described; clients must not, or each new field would break them.
    schema.pop("additionalProperties", None)
    # An optional field that an answer lacks is absent; it has no value that a client could assume.
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra=_open_to_more)


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


class Beside(Answer):
    """A chunk before or after a hit."""

    position: int = Field(description="in the document, from 0")
    page: int
    start: int
    end: int
    headings: list[str]
    text: str


class Hit(Answer):
    """A passage that a search found."""

    document_id: str
    document: str
    chunk_id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f:0"])
    position: int = Field(description="of the chunk in the document, from 0")
    page: int
    start: int
    end: int
    headings: list[str] = Field(description="the titles that it stands under, outermost first")
    text: str
    score: float = Field(description="vector: a cosine; keyword: BM25; hybrid: 1 for what is first by both; higher is better")
    neighbours: list[Beside]


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


class DuplicateMember(Member):
    document_id: str = Field(description="the document that its bytes are")


class Unpacking(Answer):
    """The result of a job of kind ``unpack``."""

    name: str = Field(description="of the archive")
    documents: int
    duplicates: int = Field(description="members whose bytes were in the collection already")
    duplicate_members: list[DuplicateMember] = Field(description="the first thousand of them")
    skipped: int = Field(description="members that were left out")
    skipped_members: list[Skipped] = Field(description="the first thousand of them")


class Counts(Answer):
    """The documents of a batch, an archive counting as one until it is unpacked; also its result."""

    total: int
    completed: int
    failed: int
    cancelled: int
    expired: int


class Error(Answer):
    """What went wrong; some errors tell more than these four."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="for programs", examples=["invalid_value"])
    message: str = Field(description="for people: what happened, to what, and what to do")
    param: str | None = Field(description="the field at fault")
    type: str


class ErrorAnswer(Answer):
    error: Error


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
    queue_position: int | None = Field(default=None, description="only while queued: 1 is next")
    estimated_wait: EstimatedWait | None = Field(default=None, description="only while queued; null while it is not known")
    not_before: Time | None = Field(default=None, description="only while queued")
    waiting_for: Literal[
        "worker", "fair share", "model loading", "gpu", "model not loaded", "retry at", "earlier message", ""
    ] = Field(default="", description="only while queued")
    response: str = Field(default="", description="the text of a completed generation, under the guide's name")
    context_used: bool = Field(default=False, description="of a completed generation: whether it has citations")


class DeadJob(Job):
    owner: str


class Problem(Answer):
    pages: str = Field(examples=["1-3, 7"])
    text: str = Field(description="what is wrong with them", examples=["holds only images and needs OCR"])


class Document(Answer):
    id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f"])
    object: Literal["document"]
    collection: str
    name: str
    version: int = Field(description="counts the documents of this name in the collection")
    size: int = Field(description="bytes")
    sha256: str
    media_type: str
    status: DocumentStatus
    reason: str | None
    pages: int
    pages_done: int
    chunks: int
    problems: list[Problem] = Field(description="of pages, whatever became of the document")
    job_id: JobId
    created_at: Time
    updated_at: Time
    metadata: dict[str, str | int | float | bool] = Field(description="what the upload said of it")


class TakenDocument(Document):
    job: JobId = Field(description="the job that reads it")
    known: bool = Field(description="whether its bytes were there already; then that job is not of this batch")


class Collection(Answer):
    id: str
    object: Literal["collection"]
    name: str
    embedding_model: str
    embedding_revision: str | None = Field(description="of its weights; null until something was indexed")
    chunk_tokens: int | None = Field(description="null for the server's")
    chunk_overlap_tokens: int | None = Field(description="null for the server's")
    reindex_job: JobId | None = Field(description="the job that makes its index anew")
    created_at: Time
    documents: int = Field(description="how many")


class Upload(Answer):
    message: str
    document_ids: list[str] = Field(description="of the chunks, once the document is ready")
    document: Document | None = Field(description="of an archive there is none; its batch is the job")
    job: Job | None


class GuideText(Answer):
    id: str
    content: str
    metadata: dict[str, Any]


class GuideTexts(Answer):
    documents: list[GuideText]
    count: int


class GuideDeleted(Answer):
    message: str
    deleted_ids: list[str]


class GuideDeletedChunk(Answer):
    message: str
    deleted_id: str


class GuideRemoved(Answer):
    message: str
    removed_ids: list[str]


class GuideCleared(Answer):
    message: str
    removed_count: int = Field(description="chunks")


class ChatTurn(Answer):
    role: Literal["user", "assistant"]
    content: str
    timestamp: str


class Chat(Answer):
    """What has been said, oldest first; with what the newest answer came from when this call made it."""

    sessionId: str
    messages: list[ChatTurn]
    job: JobId = ""
    citations: list[Citation] = []
    usage: Usage | None = None


class ChatDeleted(Answer):
    message: str
    sessionId: str


class Deleted(Answer):
    id: str
    object: Literal["job", "document", "chunk", "collection", "webhook"]
    deleted: Literal[True]


class Dropped(Answer):
    id: JobId
    object: Literal["job"]
    dropped: Literal[True]


class Model(Answer):
    """An entry of the models file, and what its workers say of themselves."""

    name: str
    url: str
    object: Literal["model"]
    kind: Literal["generate", "embed"]
    engine: str
    dtype: str
    max_context: int | None
    max_in_flight: int
    max_tokens: int
    chat_template: str | None
    stop: list[str]
    gpus: int
    replicas: int | None
    devices: list[int] | None
    gpu_share: float
    load: bool
    pinned: bool
    keep_alive: float | None
    parameters: int | None
    default: bool
    state: Literal["ready", "warming", "loading", "draining", "failed", "unloaded", "not_served"]
    reason: str | None
    progress: float | None
    attention: str | None = Field(description="the kernel by which its engine attends, once it is ready")
    workers: int = Field(description="how many serve it")


class GpuHealth(Answer):
    """One GPU as NVML tells of it; null is what it does not tell. Memory in bytes."""

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    memory_alarm: Literal["warning", "critical"] | None = Field(description="from 80 and from 90 % on")
    utilisation: float | None = Field(description="part of the last moment in which it worked, 0 to 1")
    temperature: float | None = Field(description="degrees Celsius")
    power: float | None = Field(description="watts")
    ecc_errors: int | None = Field(description="uncorrected, since the driver was loaded")
    xid_errors: list[int] = Field(description="the latest ones that its worker has seen")


class GpuSeat(Answer):
    """A gpu worker: its GPUs, the model that it should hold, and the one that it holds."""

    gpu: str = Field(description="its worker's name", examples=["gpu0@vm"])
    number: int
    object: Literal["gpu"]
    devices: list[str] = Field(description="its GPUs, as `nvidia-smi` counts; none on the CPU")
    wish: str | None = Field(description="the model that it should hold")
    by: Literal["start", "operator", "idle", "demand"] = Field(description="who wished it")
    wished_at: float
    model: str | None = Field(description="the model that it holds now")
    state: Literal["ready", "warming", "loading", "draining", "failed", "unloaded", "away"]
    reason: str | None
    progress: float | None
    running: int = Field(description="jobs that it runs")
    idle_seconds: float | None = Field(description="for how long it has run none")
    offers: list[str] = Field(description="the models that it could hold")
    refuses: dict[str, str] = Field(description="those that it could not, with the reason")
    engine: dict[str, Any] | None = Field(description="what its engine does, by its last beat")
    gpus: list[GpuHealth] = Field(description="their health; empty on the CPU")


class Alive(Answer):
    status: Literal["alive"]


class Readiness(Answer):
    status: Literal["ready", "not_ready"]
    waiting_for: list[str]
    workers: int = 0


class StreamEvent(Answer):
    """One event of a stream; on the wire these are its lines."""

    id: str = Field(description="its sequence number, which rises by one", examples=["3"])
    event: Literal["queued", "started", "delta", "progress", "attempt_lost", "requeued", "restart", "ended"]
    data: str = Field(
        description="JSON, as EventData describes it",
        json_schema_extra={"contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/EventData"}},
        examples=['{"attempt": 1, "at": 1795457629.06, "text": "Paris."}'],
    )


class EventData(Answer):
    """The JSON of one event of a stream; which fields it has goes by the event's name."""

    attempt: int = Field(description="0 for what is not of one attempt")
    at: Time
    text: str = Field(default="", description="delta: the next piece of the answer")
    queue: str = Field(default="", description="queued")
    worker: str = Field(default="", description="started, attempt_lost")
    phase: str = Field(default="", description="progress")
    done: int = Field(default=0, description="progress")
    total: int = Field(default=0, description="progress")
    unit: str = Field(default="", description="progress")
    why: str = Field(default="", description="requeued")
    delay_ms: int = Field(default=0, description="requeued")
    status: Status | None = Field(default=None, description="ended")
    code: str = Field(default="", description="ended: the code of the error of a failed job")


class Webhook(Answer):
    """An address that is told of its owner's jobs."""

    id: str = Field(examples=["whk_01m84sw1c2f0t7d5h3zq8m4n6p"])
    object: Literal["webhook"]
    url: str
    events: list[Event]
    kinds: list[Kind] = Field(description="of which jobs")
    description: str
    enabled: bool
    disabled_reason: str | None
    previous_secret_until: Time | None = Field(description="so long the secret before the rotation signs too")
    created_at: Time
    updated_at: Time


class WebhookWithSecret(Webhook):
    secret: str = Field(examples=["whsec_…"])


class WebhookSecret(Answer):
    object: Literal["webhook_secret"]
    secret: str = Field(examples=["whsec_…"])


class Try(Answer):
    """One POST of a delivery."""

    number: int
    worker: str
    started_at: Time
    ended_at: Time | None
    outcome: Literal["delivered", "failed", "lost"] | None = Field(description="null while it runs; lost when its worker died")
    status: int | None = Field(description="what was answered")
    latency: float | None = Field(description="seconds")
    answer: str = Field(description="the first 1,024 bytes")
    error: str | None


class Delivery(Answer):
    """Something told to a webhook; its id is the ``webhook-id`` of all its tries."""

    id: str = Field(examples=["dlv_01m84sw1c8a3c5e7f9b1d2e4f6"])
    object: Literal["delivery"]
    event: Event
    job: JobId
    webhook: str | None = Field(description="the kept one; null for that of the job itself")
    url: str
    status: Literal["pending", "delivered", "failed"]
    reason: str | None
    created_at: Time
    next_try_at: Time | None
    ended_at: Time | None
    tries: list[Try]


class Page(Answer, Generic[T]):
    """One page of a list; ``next`` is what ``after`` must be to go on."""

    object: Literal["list"]
    data: list[T]
    has_more: bool
    next: str | None


class JobList(Page[Job]):
    pass


class DeadJobList(Page[DeadJob]):
    pass


class DocumentList(Page[Document]):
    pass


class Chunk(Answer):
    """A piece of a document as it is indexed; its text is exactly the characters from start to end of its page."""

    id: str = Field(examples=["doc_01m84svpew31wcd91z2271xy1f:0"])
    object: Literal["chunk"]
    document_id: str
    position: int = Field(description="in the document, from 0")
    page: int = Field(description="from 1")
    start: int
    end: int
    headings: list[str]
    text: str


class ChunkList(Page[Chunk]):
    pass


class CollectionList(Page[Collection]):
    pass


class HitList(Page[Hit]):
    pass


class WebhookList(Page[Webhook]):
    pass


class GpuList(Page[GpuSeat]):
    pass


class DeliveryList(Page[Delivery]):
    pass


class TakenArchive(Answer):
    name: str
    job: JobId = Field(description="the job that unpacks it; its documents join the batch")


class TakenList(Page[TakenDocument]):
    archives: list[TakenArchive]
    batch: Job
