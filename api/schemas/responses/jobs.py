"""Response models of jobs, and of the result of each kind."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.responses.envelopes import Error, ListPage, ResponseModel
from api.schemas.responses.fields import JobId, JobKind, Time
from api.schemas.responses.openai_batches import OpenAIBatchCounts
from api.schemas.responses.search import Hit, SearchExplanation
from shared.jobs.models import Outcome, Status

WaitingFor = Literal[
    "worker",
    "fair_share",
    "running_limit",
    "concurrency_limit",
    "model_loading",
    "gpu_busy",
    "model_not_loaded",
    "paused",
    "not_before",
    "retry_backoff",
    "previous_turn",
    "",
]


class Attempt(ResponseModel):
    """One attempt of a worker to run a job."""

    number: int
    worker: str
    queue: str
    started_at: Time
    ended_at: Time | None
    outcome: Outcome | None = Field(description="null while it runs")
    error: str | None = Field(description="error code")


class Progress(ResponseModel):
    phase: str
    done: int
    total: int = Field(description="0 while it is unknown")
    unit: str = Field(examples=["pages"])


class Usage(ResponseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Citation(ResponseModel):
    """A passage that was part of the prompt."""

    marker: str = Field(examples=["[1]"])
    document_id: str
    document: str = Field(description="file name")
    page: int = Field(description="from 1")
    start: int = Field(description="offset of the first character on the page")
    end: int
    quote: str
    file_id: str = Field(default="", description="only of a `file_search` of `/v1/responses`")
    filename: str = Field(default="", description="the same")
    source: Literal["text", "ocr"] = Field(default="text", description="`ocr` if some of the text was read from a picture")
    confidence: float | None = Field(default=None, description="of OCR, from 0 to 1: the mean of its lines; null for other text")
    cited: bool | None = Field(default=None, description="whether the answer has its marker")
    support: float | None = Field(
        default=None,
        description="of the words in the sentences with its marker, the share that the quote contains; null if there are none",
    )


class RetrievalResult(ResponseModel):
    """How the passages of an answer were found."""

    query: str | None = Field(description="text of the search: the message, or the question rewritten from it")
    rewritten: bool = Field(description="whether the model rewrote the message to stand alone")
    reranker: str | None = Field(description="the model that ranked the passages, if any")
    warnings: list[str] = Field(description="why the passages were not reranked; usually empty")
    unknown_markers: list[str] = Field(description="markers in the answer that belong to no passage", examples=[["[7]"]])


class CalledFunctionResult(ResponseModel):
    name: str
    arguments: str = Field(description="JSON")


class ToolCallResult(ResponseModel):
    id: str
    type: Literal["function"]
    function: CalledFunctionResult


class ScoredToken(ResponseModel):
    token: str
    id: int | None = Field(default=None, description="not known of an engine that is a server")
    logprob: float | None = Field(description="null for the first token of a prompt")
    bytes: list[int] | None = None


class TokenLogprobs(ScoredToken):
    top: list[ScoredToken] = Field(description="the most likely tokens at this position")


class GenerationResult(ResponseModel):
    """The result of a job of kind ``generate``."""

    text: str
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    usage: Usage
    reasoning: str = Field(default="", description="what a model wrote before its answer")
    tool_calls: list[ToolCallResult] = Field(default=[], description="functions that the model calls")
    logprobs: list[TokenLogprobs] = Field(default=[], description="of each token of the answer, if they were asked for")
    prompt_logprobs: list[TokenLogprobs] = Field(default=[], description="of each token of the prompt, if they were asked for")
    citations: list[Citation] = Field(default=[], description="only of a generation with a collection")
    grounded: bool | None = Field(
        default=None, description="whether the prompt had passages; null without a collection or `file_search`"
    )
    retrieval: RetrievalResult | None = Field(default=None, description="only of a generation with a collection or `file_search`")
    file_search: dict[str, Any] | None = Field(default=None, description="what a `file_search` of `/v1/responses` has found")


class IngestResult(ResponseModel):
    """The result of a job of kind ``ingest``."""

    document_id: str
    status: Literal["ready"]
    pages: int
    chunks: int
    reason: str | None
    replaced: str | None = Field(description="id of the document of this name that it replaced")
    timings: dict[str, float] = Field(description="seconds per step")


class SearchResult(ResponseModel):
    """The result of a job of kind ``search``."""

    hits: list[Hit]
    warnings: list[str] = Field(default=[], description="why the hits were not reranked; usually empty")
    explain: SearchExplanation | None = Field(default=None, description="only with `explain`")


class EmbedResult(ResponseModel):
    """The result of a job of kind ``embed``."""

    vectors: str = Field(description="float32, little-endian, one vector after the other, in base64")
    dimension: int
    tokens: int


class RerankResult(ResponseModel):
    """The result of a job of kind ``rerank``."""

    scores: list[float] = Field(description="of the documents, in their order")
    tokens: int


class RequestBatchResult(ResponseModel):
    """The result of a job of kind ``request_batch``."""

    batch: str = Field(description="its id in `/v1`")
    request_counts: OpenAIBatchCounts
    output_file_id: str | None
    error_file_id: str | None


class TokenizeResult(ResponseModel):
    """The result of a job of kind ``tokenize``, whose fields depend on what was asked for."""

    model_config = ConfigDict(extra="allow")


class DrawResult(ResponseModel):
    """The result of a job of kind ``draw``, which a request for a page waits for and deletes."""

    page: int
    width: float
    height: float
    bytes: int


class DeleteResult(ResponseModel):
    """The result of a job of kind ``delete``."""

    deleted: Literal[True]
    documents: int = 0
    chunks: int = Field(default=0, description="set when one chunk was deleted")


class ReindexResult(ResponseModel):
    """The result of a job of kind ``reindex``."""

    documents: int
    chunks: int
    skipped: list[str] = Field(description="documents whose stored pages are lost; upload them again")
    embedding_model: str
    embedding_revision: str


class ArchiveMember(ResponseModel):
    """A member of an archive."""

    name: str


class MemberOmission(ArchiveMember):
    reason: str = Field(description="why it was skipped")


class MemberDocument(ArchiveMember):
    document_id: str = Field(description="the document with its content")


class UnpackResult(ResponseModel):
    """The result of a job of kind ``unpack``."""

    name: str = Field(description="file name of the archive")
    documents: int
    members: list[MemberDocument] = Field(description="the first 1,000")
    duplicates: int = Field(description="members whose content the collection already had")
    duplicate_members: list[MemberDocument] = Field(description="the first 1,000")
    skipped: int = Field(description="members that were not ingested")
    skipped_members: list[MemberOmission] = Field(description="the first 1,000")


class FetchResult(ResponseModel):
    """The result of a job of kind ``fetch``."""

    url: str
    status: Literal["fetched", "archive", "unchanged", "duplicate", "name_taken"] = Field(
        description="`unchanged` if the document of this URL is of the newest version, `duplicate` if the collection has these bytes, "
        "`name_taken` if another document has the name and was not to be replaced"
    )
    document_id: str | None = Field(description="the document that the URL stands for; null for an archive")
    job: JobId | None = Field(description="the job that ingests or unpacks what was fetched")
    bytes: int = Field(description="size of what was fetched")


class BatchCounts(ResponseModel):
    """Number of documents of a batch by status, which is also its result. An archive counts as one until it is unpacked, and a URL until it is
    fetched."""

    total: int
    completed: int
    failed: int
    cancelled: int
    expired: int


class Timings(ResponseModel):
    """Seconds since submission."""

    queued: float | None = Field(description="until a worker first claimed it")
    first_token: float | None
    total: float | None


class Urls(ResponseModel):
    self_: str = Field(alias="self")
    events: str
    cancel: str


class EstimatedWait(ResponseModel):
    """Seconds until the job starts; nine waits in ten are between ``low`` and ``high``."""

    seconds: float
    low: float
    high: float


class ListedJob(ResponseModel):
    """A generation, an ingest, a search, a deletion, a reindex, an unpacked archive, or a batch of jobs, without its result."""

    id: JobId
    object: Literal["job"]
    kind: JobKind
    status: Status = Field(description="the last four are final")
    phase: str = Field(description="more detailed than the status, for people")
    phase_at: Time
    model: str | None
    priority: int = Field(description="0 runs first, 9 last")
    end_user: str | None = Field(description="the person behind the API key for whom it runs")
    created_at: Time
    started_at: Time | None
    ended_at: Time | None
    expires_at: Time
    cancel_requested_at: Time | None
    progress: Progress | None
    attempts: list[Attempt]
    metadata: dict[str, str]
    summary: str = Field(description="the beginning of the prompt, query or file name; empty in webhooks")
    error: Error | None = Field(description="of a failed job")
    heartbeat_at: Time | None = Field(description="when its worker last renewed it")
    batch: str | None = Field(description="id of the batch that it belongs to")
    retry_of: str | None = Field(description="id of the job that it repeats")
    timings: Timings
    urls: Urls
    session: str = Field(default="", description="only of chat turns")
    concurrency_key: str = Field(default="", description="only of a job that was submitted with one")
    concurrency_limit: int | None = Field(
        default=None,
        description="only with `concurrency_key`: how many jobs of the owner with this key may run when it starts, itself included",
    )
    counts: BatchCounts | None = Field(default=None, description="only of a batch")
    sealed: bool = Field(default=False, description="only of a batch: whether no more jobs can join")
    request_batch: str | None = Field(default=None, description="only of a batch of `/v1` and of its requests: its id there")
    request_counts: OpenAIBatchCounts | None = Field(default=None, description="only of a batch of `/v1`")
    estimated_end_at: Time | None = Field(
        default=None, description="only of a batch of `/v1`: when its last request will end, at the speed so far"
    )
    queue_position: int | None = Field(default=None, description="only while queued; 1 is next")
    estimated_wait: EstimatedWait | None = Field(default=None, description="only while queued; null while it is unknown")
    not_before: Time | None = Field(
        default=None,
        description="only while queued: time of the next attempt, or the earliest start; of a batch: that of its jobs",
    )
    waiting_for: WaitingFor = Field(default="", description="only while queued: what keeps it from running")


class Job(ListedJob):
    """A job with its result."""

    result: (
        GenerationResult
        | IngestResult
        | SearchResult
        | DeleteResult
        | DrawResult
        | ReindexResult
        | UnpackResult
        | FetchResult
        | BatchCounts
        | RequestBatchResult
        | EmbedResult
        | RerankResult
        | TokenizeResult
        | None
    ) = Field(description="of a completed job")
    response: str = Field(default="", description="text of a completed generation; the field of the chat_gp_me tutorial")
    context_used: bool = Field(default=False, description="of a completed generation: whether it has citations")


class DeadLetter(ListedJob):
    owner: str


class DeadLetterRemoval(ResponseModel):
    id: JobId
    object: Literal["job"]
    removed: Literal[True]


class JobSummary(ResponseModel):
    """What a list of jobs shows of one, with `view=summary`."""

    id: JobId
    object: Literal["job"]
    kind: JobKind
    status: Status
    model: str | None
    priority: int
    created_at: Time
    started_at: Time | None
    ended_at: Time | None
    cancel_requested_at: Time | None
    progress: Progress | None
    summary: str
    error: Error | None
    batch: str | None
    retried_as: str | None = Field(description="id of the job that repeats it")


class JobList(ListPage[ListedJob | JobSummary]):
    pass


class JobCounts(ResponseModel):
    """Numbers of jobs by what they have; names without jobs are left out."""

    object: Literal["job_counts"]
    status: dict[str, int]
    kind: dict[str, int]
    model: dict[str, int] = Field(description="jobs without a model are not counted here")
    total: int
    complete: bool = Field(description="false if only the newest jobs were counted, as `q` or `metadata` has to read each job")


class JobRequest(ResponseModel):
    """What a job was asked to do; null once that was deleted. The fields depend on the kind of the job."""

    request: dict[str, Any] | None


class JobLogLine(ResponseModel):
    at: Time
    level: Literal["debug", "info", "warning", "error", "critical"]
    message: str
    attempt: int | None = Field(description="only for a line that a worker logged")
    worker: str | None = Field(description="the same")


class JobLog(ResponseModel):
    """What happened to a job and when, oldest first: the latest 1,000 lines."""

    object: Literal["job_log"]
    job: JobId
    request_id: str | None = Field(description="`x-request-id` of the request that submitted the job")
    trace_id: str | None = Field(description="of its `traceparent`")
    lines: list[JobLogLine]


class ActionFailure(ResponseModel):
    """A job to which an action did not apply, and why."""

    id: str
    code: str
    message: str


class JobsActionResult(ResponseModel):
    """The outcome of an action on jobs."""

    object: Literal["job_action"]
    action: Literal["cancel", "retry", "delete"]
    matched: int = Field(description="jobs that were found")
    done: int = Field(description="jobs that were changed")
    failed: list[ActionFailure]
    next: str | None = Field(description="`after` of the next call; null if no further job can match")


class DeadLetterList(ListPage[DeadLetter]):
    pass
