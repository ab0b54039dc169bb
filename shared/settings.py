"""Settings: what can be set, each with its variable, default, description and limits. They are read once and frozen.

``shared.settings_sources`` reads them; nothing else reads ``os.environ``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.packaged_files import packaged_file

MIB = 1024 * 1024
HOUR = 3600
DAY = 24 * HOUR
MAX_TOKENS = 10**15

# Limits that can be set for a single owner, and the setting that each has otherwise.
OWNER_LIMITS = {
    "requests_per_second": "max_requests_per_second",
    "tokens_per_minute": "max_tokens_per_minute",
    "tokens_per_day": "max_tokens_per_day",
    "tokens_per_month": "max_tokens_per_month",
    "running_jobs": "max_running_jobs",
    "end_user_tokens_per_minute": "max_end_user_tokens_per_minute",
    "end_user_tokens_per_day": "max_end_user_tokens_per_day",
    "end_user_tokens_per_month": "max_end_user_tokens_per_month",
    "end_user_queued_jobs": "max_end_user_queued_jobs",
    "end_user_running_jobs": "max_end_user_running_jobs",
    "queued_jobs": "max_queued_per_owner",
    "job_bytes": "max_bytes_per_owner",
    "kept_jobs": "max_kept_jobs",
    "kept_bytes": "max_kept_bytes",
    "open_batches": "max_open_batches",
    "stored_bytes": "max_stored_bytes",
    "documents": "max_documents",
    "collections": "max_collections",
    "sessions": "max_sessions",
    "streams": "max_streams",
    "waits": "max_waits",
}

# Limits that can be set for a single API key.
KEY_LIMITS = ("tokens_per_minute", "tokens_per_day", "tokens_per_month")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def setting(
    name: str,
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    one_of: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A field of ``Settings``: environment variable, default, description (with its unit) and limits.

    A ``secret`` can be read from a file, and is not printed.
    """
    limits = {"low": low, "high": high, "one_of": one_of}
    return field(default=default, metadata={"name": name, "doc": doc, "secret": secret, **limits}, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process. ``Settings()`` has the defaults; use ``settings_sources.from_environment`` otherwise."""

    data_dir: Path = setting(
        "ENGINEHOUSE_DATA", Path(".enginehouse"), "Folder for all state: Redis files, indexes, uploads, prepared models."
    )
    redis_url: str = setting(
        "REDIS_URL",
        "redis://127.0.0.1:6379/0",
        "URL of Redis. If it is set, `enginehouse up` does not start a Redis server.",
        secret=True,
    )
    chroma_url: str = setting(
        "ENGINEHOUSE_CHROMA_URL",
        "http://127.0.0.1:8000",
        "URL of the Chroma server, with its password as in `http://:PASSWORD@host:8000`. If it is set, `enginehouse up` does not start one.",
        secret=True,
    )
    metrics_token: str = setting(
        "ENGINEHOUSE_METRICS_TOKEN",
        "",
        "Bearer token that allows `GET /metrics` and nothing else. It is checked without Redis, so that an outage can be observed.",
        secret=True,
    )
    keys_file: Path | None = setting(
        "ENGINEHOUSE_KEYS_FILE",
        None,
        "File with API keys, as JSON. Each API process reads it when it starts, creates and changes the keys in it, and revokes keys that "
        "were removed from it.",
    )
    host: str = setting("ENGINEHOUSE_HOST", "127.0.0.1", "Address that the API listens on.")
    port: int = setting("ENGINEHOUSE_PORT", 5000, "Port that the API listens on.", low=1, high=65535)
    allowed_hosts: str = setting(
        "ENGINEHOUSE_ALLOWED_HOSTS",
        "127.0.0.1,localhost,::1",
        "Comma-separated host names that calls may be sent to while no API key exists. Names of other servers are rejected.",
    )
    allow_open: bool = setting(
        "ENGINEHOUSE_ALLOW_OPEN",
        False,
        "While no API key exists, accept calls from other machines too. For a container whose port is published on loopback only.",
    )
    allow_root: bool = setting(
        "ENGINEHOUSE_ALLOW_ROOT",
        False,
        "Let root run `enginehouse worker`, `enginehouse api`, and `enginehouse up` on an address that other machines can reach.",
    )
    models_file: Path = setting(
        "ENGINEHOUSE_MODELS_FILE",
        packaged_file("models.json"),
        "The models file. Defaults to `models.json` in the current folder, or else to the file that ships with Enginehouse.",
    )
    models_dir: Path | None = setting(
        "ENGINEHOUSE_MODELS_DIR", None, "Folder for prepared models. Defaults to `models` in the data folder."
    )
    engine: str = setting(
        "ENGINEHOUSE_ENGINE",
        "",
        "Engine for all generation models, instead of the one in their entries.",
        one_of=("", "echo", "transformers"),
    )
    vllm_python: Path | None = setting(
        "ENGINEHOUSE_VLLM_PYTHON",
        None,
        "Python interpreter with vLLM, for models with the engine `vllm`. Defaults to the one that `enginehouse engines add vllm` "
        "installs.",
    )
    cors_origins: str = setting("ENGINEHOUSE_CORS_ORIGINS", "", "Comma-separated origins whose pages may call the API (CORS).")
    flower_url: str = setting(
        "ENGINEHOUSE_FLOWER_URL",
        "",
        "Address of Flower, to which the operations view of the web page links. `enginehouse up` sets it to that of its own Flower if the "
        "API listens on loopback.",
    )
    grafana_url: str = setting(
        "ENGINEHOUSE_GRAFANA_URL", "", "Address of a Grafana dashboard, to which the operations view of the web page links."
    )
    audit_log: str = setting(
        "ENGINEHOUSE_AUDIT_LOG",
        "log/audit.jsonl",
        "File of the audit log, in the data folder unless it is absolute; `off` writes none.",
    )
    otlp_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "URL of an OTLP/HTTP receiver of traces, such as `http://127.0.0.1:4318`. Needs the extra `otel`; OpenTelemetry's own variables for "
        "headers and sampling apply.",
    )
    semantic_conventions: str = setting(
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "",
        "With `gen_ai_latest_experimental` in this comma-separated list, `/metrics` also has the `gen_ai_server_*` names of OpenTelemetry.",
    )
    log_level: str = setting("ENGINEHOUSE_LOG_LEVEL", "INFO", "Log level.", one_of=LOG_LEVELS)
    log_levels: str = setting(
        "ENGINEHOUSE_LOG_LEVELS", "", "Comma-separated levels of single loggers, such as `workers.cpu=DEBUG,api=WARNING`."
    )
    log_format: str = setting(
        "ENGINEHOUSE_LOG_FORMAT",
        "text",
        "Format of logs: lines of text, or one JSON object per line with `time`, `level`, `logger`, `message` and the ids `request_id`, "
        "`job` and `trace_id`.",
        one_of=("text", "json"),
    )

    lease_seconds: float = setting(
        "ENGINEHOUSE_LEASE_SECONDS",
        30.0,
        "How long a claimed job stays with a worker that no longer renews its lease.",
        low=1,
        high=HOUR,
    )
    renew_seconds: float = setting("ENGINEHOUSE_RENEW_SECONDS", 5.0, "How often a worker renews its leases.", low=0.1, high=600)
    maintenance_seconds: float = setting(
        "ENGINEHOUSE_MAINTENANCE_SECONDS",
        1.0,
        "How often a worker of each machine runs maintenance: lapsed leases, delays that are over, deadlines, missing wake-ups.",
        low=0.05,
        high=60,
    )
    canary_seconds: float = setting(
        "ENGINEHOUSE_CANARY_SECONDS", 30.0, "How often each worker is sent a canary message.", low=1, high=600
    )
    max_attempts: int = setting(
        "ENGINEHOUSE_MAX_ATTEMPTS",
        3,
        "Attempts that a job may lose to crashed workers before it ends as `failed`.",
        low=1,
        high=100,
    )
    max_retries: int = setting(
        "ENGINEHOUSE_MAX_RETRIES", 3, "Retries of a job after errors of the engine or of a service.", low=0, high=100
    )
    max_queue_seconds: int = setting(
        "ENGINEHOUSE_MAX_QUEUE_SECONDS",
        DAY,
        "A job that has not started within this time ends as `expired`.",
        low=1,
        high=30 * DAY,
    )
    drain_seconds: float = setting(
        "ENGINEHOUSE_DRAIN_SECONDS", 20.0, "How long a stopping worker waits for its running jobs.", low=0, high=HOUR
    )
    max_queued: int = setting(
        "ENGINEHOUSE_MAX_QUEUED",
        100_000,
        "Maximum number of queued jobs per queue; further jobs are rejected with 429.",
        low=1,
        high=10_000_000,
    )
    max_queued_per_owner: int = setting(
        "ENGINEHOUSE_MAX_QUEUED_PER_OWNER", 50_000, "Maximum number of queued jobs per queue and owner.", low=1, high=10_000_000
    )
    reserved_slots: float = setting(
        "ENGINEHOUSE_RESERVED_SLOTS",
        0.125,
        "Fraction of a worker's slots, rounded up, that one owner cannot have while there are other owners, so that their next job starts at once.",
        low=0,
        high=0.5,
    )
    max_requests_per_second: int = setting(
        "ENGINEHOUSE_MAX_REQUESTS_PER_SECOND",
        500,
        "Maximum requests per second of one owner, and twice as many at once; 0 means no limit. Applies once an API key exists.",
        low=0,
        high=1_000_000,
    )
    max_tokens_per_minute: int = setting(
        "ENGINEHOUSE_MAX_TOKENS_PER_MINUTE",
        0,
        "Maximum tokens per minute of one owner's jobs, prompt and answer together; 0 means no limit.",
        low=0,
        high=MAX_TOKENS,
    )
    max_tokens_per_day: int = setting(
        "ENGINEHOUSE_MAX_TOKENS_PER_DAY",
        0,
        "Maximum tokens of one owner's jobs on a day (UTC); 0 means no limit.",
        low=0,
        high=MAX_TOKENS,
    )
    max_tokens_per_month: int = setting(
        "ENGINEHOUSE_MAX_TOKENS_PER_MONTH",
        0,
        "Maximum tokens of one owner's jobs in a calendar month (UTC); 0 means no limit.",
        low=0,
        high=MAX_TOKENS,
    )
    max_running_jobs: int = setting(
        "ENGINEHOUSE_MAX_RUNNING_JOBS",
        0,
        "Maximum jobs of one owner that run at once, in all queues; others wait. 0 means no limit.",
        low=0,
        high=1_000_000,
    )
    max_end_user_tokens_per_minute: int = setting(
        "ENGINEHOUSE_MAX_END_USER_TOKENS_PER_MINUTE",
        0,
        "Maximum tokens per minute of each end user of an owner; 0 means no limit.",
        low=0,
        high=MAX_TOKENS,
    )
    max_end_user_tokens_per_day: int = setting(
        "ENGINEHOUSE_MAX_END_USER_TOKENS_PER_DAY",
        0,
        "Maximum tokens of each end user of an owner on a day (UTC); 0 means no limit.",
        low=0,
        high=MAX_TOKENS,
    )
    max_end_user_tokens_per_month: int = setting(
        "ENGINEHOUSE_MAX_END_USER_TOKENS_PER_MONTH",
        0,
        "Maximum tokens of each end user of an owner in a calendar month (UTC); 0 means no limit.",
        low=0,
        high=MAX_TOKENS,
    )
    max_end_user_queued_jobs: int = setting(
        "ENGINEHOUSE_MAX_END_USER_QUEUED_JOBS",
        0,
        "Maximum number of queued jobs of each end user of an owner, per queue; 0 means no limit.",
        low=0,
        high=10_000_000,
    )
    max_end_user_running_jobs: int = setting(
        "ENGINEHOUSE_MAX_END_USER_RUNNING_JOBS",
        0,
        "Maximum jobs of each end user of an owner that run at once, in all queues; others wait. 0 means no limit.",
        low=0,
        high=1_000_000,
    )
    max_stored_bytes: int = setting(
        "ENGINEHOUSE_MAX_STORED_BYTES",
        100 * 1024 * MIB,
        "Maximum size of all documents of one owner; 0 means no limit.",
        low=0,
        high=1024 * 1024 * 1024 * MIB,
    )
    max_documents: int = setting(
        "ENGINEHOUSE_MAX_DOCUMENTS", 1_000_000, "Maximum documents of one owner; 0 means no limit.", low=0, high=1_000_000_000
    )
    max_collections: int = setting(
        "ENGINEHOUSE_MAX_COLLECTIONS", 10_000, "Maximum collections of one owner; 0 means no limit.", low=0, high=1_000_000
    )
    max_sessions: int = setting(
        "ENGINEHOUSE_MAX_SESSIONS", 100_000, "Maximum chat sessions of one owner; 0 means no limit.", low=0, high=100_000_000
    )
    max_open_batches: int = setting(
        "ENGINEHOUSE_MAX_OPEN_BATCHES",
        1_000,
        "Maximum batches of one owner that are open for more jobs; 0 means no limit.",
        low=0,
        high=1_000_000,
    )
    max_streams: int = setting(
        "ENGINEHOUSE_MAX_STREAMS",
        256,
        "Maximum event streams of one owner per API process; 0 means no limit. Applies once an API key exists.",
        low=0,
        high=4096,
    )
    max_waits: int = setting(
        "ENGINEHOUSE_MAX_WAITS",
        256,
        "Maximum waiting requests of one owner per API process; 0 means no limit. Applies once an API key exists.",
        low=0,
        high=4096,
    )
    job_retention_seconds: int = setting(
        "ENGINEHOUSE_JOB_RETENTION_SECONDS", 7 * DAY, "How long ended jobs are kept.", low=60, high=365 * DAY
    )
    max_kept_jobs: int = setting(
        "ENGINEHOUSE_MAX_KEPT_JOBS",
        1_000_000,
        "Maximum jobs of one owner; beyond it, those that ended first are deleted before their time. 0 means no limit.",
        low=0,
        high=1_000_000_000,
    )
    max_kept_bytes: int = setting(
        "ENGINEHOUSE_MAX_KEPT_BYTES",
        0,
        "Maximum size of input and results of one owner's jobs; beyond it, jobs that ended first are deleted before their time. 0 means no limit.",
        low=0,
        high=1024 * 1024 * MIB,
    )
    event_retention_seconds: int = setting(
        "ENGINEHOUSE_EVENT_RETENTION_SECONDS",
        HOUR,
        "How long the events of an ended job are kept, which take more memory than the rest of a small job. Afterwards, its stream has the whole text in one event.",
        low=1,
        high=365 * DAY,
    )
    usage_retention_days: int = setting(
        "ENGINEHOUSE_USAGE_RETENTION_DAYS",
        400,
        "How long the usage ledger keeps each owner's daily usage, independently of the jobs.",
        low=1,
        high=3660,
    )
    failed_retention_seconds: int = setting(
        "ENGINEHOUSE_FAILED_RETENTION_SECONDS",
        2 * DAY,
        "How long jobs are kept that failed, expired or were cancelled. Dead letters are kept like completed jobs.",
        low=60,
        high=365 * DAY,
    )
    response_retention_seconds: int = setting(
        "ENGINEHOUSE_RESPONSE_RETENTION_SECONDS",
        30 * DAY,
        "How long a stored response of `/v1/responses` is kept after its last use, in whatever way it has ended.",
        low=60,
        high=365 * DAY,
    )
    keep_prompts: bool = setting(
        "ENGINEHOUSE_KEEP_PROMPTS",
        True,
        "Keep the prompt of a completed job as long as the job, so that it can run again. Without it, the prompt is deleted when the job completes.",
    )
    log_rewrite_seconds: float = setting(
        "ENGINEHOUSE_LOG_REWRITE_SECONDS",
        float(DAY),
        "How often Redis rewrites its append-only file. Until then, the file contains what was deleted.",
        low=60,
        high=30 * DAY,
    )
    word_purge_seconds: float = setting(
        "ENGINEHOUSE_WORD_PURGE_SECONDS",
        float(DAY),
        "How long words of deleted chunks may stay in the file of a text index. An io worker looks every ten minutes for indexes to purge.",
        low=0,
        high=30 * DAY,
    )
    max_bytes_per_owner: int = setting(
        "ENGINEHOUSE_MAX_BYTES_PER_OWNER",
        1024 * MIB,
        "Maximum size of what one owner has in Redis: jobs with prompts and results, queued and ended, and chats; 0 means no limit.",
        low=0,
        high=1024 * 1024 * MIB,
    )
    redis_memory_bytes: int | None = setting(
        "ENGINEHOUSE_REDIS_MEMORY_BYTES",
        None,
        "Maximum memory of the Redis that `enginehouse up` starts. Defaults to a quarter of the machine's.",
        low=64 * MIB,
        high=1024 * 1024 * MIB,
    )
    seal_seconds: float = setting(
        "ENGINEHOUSE_SEAL_SECONDS",
        3600.0,
        "How long an open batch waits for more jobs after all its jobs have ended; then it is sealed.",
        low=1,
        high=30 * DAY,
    )
    event_limit: int = setting("ENGINEHOUSE_EVENT_LIMIT", 10_000, "Events kept per job.", low=100, high=1_000_000)
    session_seconds: int = setting(
        "ENGINEHOUSE_SESSION_SECONDS", 90 * DAY, "How long unused chat sessions are kept.", low=60, high=365 * DAY
    )
    max_session_turns: int = setting(
        "ENGINEHOUSE_MAX_SESSION_TURNS", 2_000, "Maximum turns of one chat session, in all its branches.", low=1, high=100_000
    )
    max_session_bytes: int = setting(
        "ENGINEHOUSE_MAX_SESSION_BYTES",
        16 * MIB,
        "Size of the questions and answers of one chat session at which it accepts no further message.",
        low=1024,
        high=1024 * MIB,
    )
    max_wait_seconds: int = setting(
        "ENGINEHOUSE_MAX_WAIT_SECONDS", 60, "Maximum time that one request waits for a job.", low=1, high=600
    )
    chat_wait_seconds: int = setting(
        "ENGINEHOUSE_CHAT_WAIT_SECONDS", 300, "How long chat requests wait for their answer.", low=1, high=HOUR
    )
    v1_wait_seconds: int = setting(
        "ENGINEHOUSE_V1_WAIT_SECONDS",
        HOUR,
        "How long a call of /v1 that does not stream waits for its answer; then its job is cancelled.",
        low=1,
        high=DAY,
    )
    api_workers: int = setting("ENGINEHOUSE_API_WORKERS", 2, "Number of API processes.", low=1, high=64)
    api_threads: int = setting(
        "ENGINEHOUSE_API_THREADS",
        1024,
        "Maximum threads per API process. Each waiting client occupies one; up to four fifths may wait.",
        low=4,
        high=4096,
    )
    cpu_workers: int = setting(
        "ENGINEHOUSE_CPU_WORKERS", 2, "Number of processes that parse, chunk and embed documents.", low=1, high=256
    )
    io_workers: int = setting(
        "ENGINEHOUSE_IO_WORKERS", 16, "Number of threads that search, delete and send webhooks.", low=1, high=1024
    )

    header_seconds: float = setting(
        "ENGINEHOUSE_HEADER_SECONDS", 10.0, "Maximum time to receive the header of a request.", low=0.1, high=HOUR
    )
    body_seconds: float = setting(
        "ENGINEHOUSE_BODY_SECONDS",
        30.0,
        "Maximum time to receive the body of a request, plus one second for each 1000 bytes received.",
        low=0.1,
        high=HOUR,
    )
    max_idle_connections: int = setting(
        "ENGINEHOUSE_MAX_IDLE_CONNECTIONS",
        256,
        "Connections of one address, per API process, that have not sent the header of a request. Further ones replace the oldest.",
        low=1,
        high=8192,
    )
    min_free_bytes: int = setting(
        "ENGINEHOUSE_MIN_FREE_BYTES",
        512 * MIB,
        "Free space on the disk of the data folder below which jobs and uploads are refused, at most 5% of the disk. 0 never refuses.",
        low=0,
        high=1024 * 1024 * MIB,
    )
    max_body_bytes: int = setting(
        "ENGINEHOUSE_MAX_BODY_BYTES", 8 * MIB, "Maximum size of a JSON body.", low=1024, high=1024 * MIB
    )
    max_upload_bytes: int = setting(
        "ENGINEHOUSE_MAX_UPLOAD_BYTES", 1024 * MIB, "Maximum size of an upload request.", low=1024, high=64 * 1024 * MIB
    )
    max_batch_requests: int = setting(
        "ENGINEHOUSE_MAX_BATCH_REQUESTS",
        50_000,
        "Maximum number of requests in the input file of a batch of /v1.",
        low=1,
        high=10_000_000,
    )
    max_batch_bytes: int = setting(
        "ENGINEHOUSE_MAX_BATCH_BYTES",
        200 * MIB,
        "Maximum size of the input file of a batch of /v1.",
        low=1024,
        high=64 * 1024 * MIB,
    )
    batch_window: int = setting(
        "ENGINEHOUSE_BATCH_WINDOW",
        256,
        "Maximum number of requests of one batch of /v1 that are queued or run at once.",
        low=1,
        high=100_000,
    )
    batch_runners: int = setting(
        "ENGINEHOUSE_BATCH_RUNNERS",
        4,
        "Number of batches of /v1 that one io worker runs at once.",
        low=1,
        high=256,
    )
    max_archive_members: int = setting(
        "ENGINEHOUSE_MAX_ARCHIVE_MEMBERS", 20_000, "Maximum number of files in an uploaded archive.", low=1, high=1_000_000
    )
    max_archive_bytes: int = setting(
        "ENGINEHOUSE_MAX_ARCHIVE_BYTES",
        8 * 1024 * MIB,
        "Maximum unpacked size of an archive.",
        low=1024,
        high=1024 * 1024 * MIB,
    )
    max_archive_ratio: int = setting(
        "ENGINEHOUSE_MAX_ARCHIVE_RATIO",
        200,
        "Maximum ratio of unpacked to packed size; applies above 16 MiB.",
        low=1,
        high=100_000,
    )
    max_prompt_characters: int = setting(
        "ENGINEHOUSE_MAX_PROMPT_CHARACTERS",
        2_000_000,
        "Maximum length of a prompt, summed over its messages.",
        low=1,
        high=64 * MIB,
    )
    max_pages: int = setting("ENGINEHOUSE_MAX_PAGES", 20_000, "Maximum pages of a document.", low=1, high=10_000_000)
    max_page_characters: int = setting(
        "ENGINEHOUSE_MAX_PAGE_CHARACTERS", 1_000_000, "Maximum characters of a page.", low=1000, high=64 * MIB
    )
    max_document_characters: int = setting(
        "ENGINEHOUSE_MAX_DOCUMENT_CHARACTERS",
        50_000_000,
        "Maximum characters of a document.",
        low=1000,
        high=10_000_000_000,
    )
    max_document_seconds: float = setting(
        "ENGINEHOUSE_MAX_DOCUMENT_SECONDS",
        1800.0,
        "Maximum time to parse a whole document.",
        low=1,
        high=DAY,
    )
    turn_seconds: float = setting(
        "ENGINEHOUSE_TURN_SECONDS",
        30.0,
        "How long a document keeps its process while another owner, none of whose documents is being read, waits for one.",
        low=0,
        high=DAY,
    )
    parse_seconds: float = setting(
        "ENGINEHOUSE_PARSE_SECONDS",
        300.0,
        "Maximum time to parse a document, or 200 pages of a long one.",
        low=1,
        high=DAY,
    )
    parse_memory_bytes: int = setting(
        "ENGINEHOUSE_PARSE_MEMORY_BYTES",
        1024 * MIB,
        "Maximum memory to parse a document.",
        low=128 * MIB,
        high=256 * 1024 * MIB,
    )
    pdf_layout: bool = setting(
        "ENGINEHOUSE_PDF_LAYOUT",
        True,
        "Write tables of PDFs as Markdown rows, read columns one after the other, and leave out headers and footers that repeat on most "
        "pages. With `0`, the text of a PDF is in the order of the file.",
    )
    max_picture_pixels: int = setting(
        "ENGINEHOUSE_MAX_PICTURE_PIXELS",
        100_000_000,
        "Maximum width times height of a picture: an uploaded one, one page of a TIFF, or one inside an Office file or e-mail.",
        low=10_000,
        high=1_000_000_000,
    )
    ocr_engine: str = setting(
        "ENGINEHOUSE_OCR_ENGINE",
        "rapidocr",
        "Engine that reads pictures and scanned pages. `tesseract` needs Debian's package tesseract-ocr; with `off`, such documents end "
        "as `needs_ocr`.",
        one_of=("rapidocr", "tesseract", "off"),
    )
    ocr_languages: str = setting(
        "ENGINEHOUSE_OCR_LANGUAGES",
        "",
        "Comma-separated languages of scans, by the names of Tesseract's data files, such as `deu,eng`. Defaults to `eng` for tesseract; "
        "rapidocr always reads all of its languages, and refuses others.",
    )
    ocr_images: bool = setting(
        "ENGINEHOUSE_OCR_IMAGES",
        False,
        "Also read pictures on pages that have text: of PDFs, Office files and e-mails. In a PDF, their text follows that of the page; "
        "elsewhere it stands where the picture is shown.",
    )
    ocr_page_seconds: float = setting(
        "ENGINEHOUSE_OCR_PAGE_SECONDS",
        120.0,
        "Maximum time of OCR for a page. A page that takes longer is left out and reported in `problems`.",
        low=1,
        high=HOUR,
    )
    ocr_document_seconds: float = setting(
        "ENGINEHOUSE_OCR_DOCUMENT_SECONDS",
        6.0 * HOUR,
        "Maximum time of OCR for a document in one attempt. The pages that are left are reported in `problems`.",
        low=1,
        high=30 * DAY,
    )
    ocr_memory_bytes: int = setting(
        "ENGINEHOUSE_OCR_MEMORY_BYTES",
        2048 * MIB,
        "Maximum address space of a process that does OCR. It uses about a third of that.",
        low=1024 * MIB,
        high=256 * 1024 * MIB,
    )
    unreadable_file_seconds: int = setting(
        "ENGINEHOUSE_UNREADABLE_FILE_SECONDS",
        7 * DAY,
        "How long an uploaded file that could not be read is kept for a retry. Its document stays.",
        low=60,
        high=3650 * DAY,
    )
    trash_seconds: int = setting(
        "ENGINEHOUSE_TRASH_SECONDS",
        30 * DAY,
        "How long the trash keeps folders of documents that a repair found without a record.",
        low=60,
        high=3650 * DAY,
    )
    chunk_tokens: int = setting(
        "ENGINEHOUSE_CHUNK_TOKENS", 200, "Chunk size in tokens of the embedding model.", low=16, high=8192
    )
    chunk_overlap_tokens: int = setting(
        "ENGINEHOUSE_CHUNK_OVERLAP_TOKENS", 20, "Tokens that a chunk repeats from the previous one.", low=0, high=4096
    )
    embedding_device: str = setting(
        "ENGINEHOUSE_EMBEDDING_DEVICE",
        "",
        "Device for embedding models. Defaults to a GPU with 4 GiB of free memory, or else the CPU.",
        one_of=("", "cpu", "cuda"),
    )
    embedding_socket: Path | None = setting(
        "ENGINEHOUSE_EMBEDDING_SOCKET",
        None,
        "Unix socket of the process that holds the embedding models for the cpu and io workers of one host. `enginehouse up` starts it and "
        "sets this. Without it, each worker process loads the models that it uses.",
    )
    retrieve_top_k: int = setting(
        "ENGINEHOUSE_RETRIEVE_TOP_K", 3, "Number of chunks given to the model when a request does not set it.", low=1, high=100
    )
    retrieve_neighbours: int = setting(
        "ENGINEHOUSE_RETRIEVE_NEIGHBOURS",
        1,
        "Number of chunks before and after each passage that the model also reads. Requests and the models file can override it.",
        low=0,
        high=5,
    )
    retrieve_tokens: int = setting(
        "ENGINEHOUSE_RETRIEVE_TOKENS",
        1500,
        "Maximum tokens of all passages in a prompt, unless a request sets it. The model's context limits them further.",
        low=64,
        high=1_000_000,
    )
    rewrite_questions: bool = setting(
        "ENGINEHOUSE_REWRITE_QUESTIONS",
        True,
        "Let the model rewrite a follow-up question to stand alone before the search, unless a request turns it off.",
    )
    min_relevance: float = setting(
        "ENGINEHOUSE_MIN_RELEVANCE",
        0.0,
        "Minimum relevance of a passage, unless a request sets it: the reranker's score, or else the cosine similarity. If no "
        "passage reaches it, the answer says that the documents contain none; 0 gives the model all passages.",
        low=0,
        high=1,
    )
    rerank_searches: bool = setting(
        "ENGINEHOUSE_RERANK_SEARCHES",
        True,
        "Rerank the hits of searches with the default reranker of the models file, if there is one. Requests can override it.",
    )
    default_collection: str = setting("ENGINEHOUSE_DEFAULT_COLLECTION", "default", "Collection used by `/upload` and `use_rag`.")
    webhook_allow: str = setting(
        "ENGINEHOUSE_WEBHOOK_ALLOW",
        "",
        "Comma-separated private address ranges that webhooks may call, such as `10.1.0.0/16`.",
    )
    webhook_seconds: float = setting(
        "ENGINEHOUSE_WEBHOOK_SECONDS", 15.0, "Maximum time of one delivery attempt, including the response.", low=0.1, high=600
    )
    url_allow: str = setting(
        "ENGINEHOUSE_URL_ALLOW",
        "",
        "Comma-separated private address ranges from which documents may be fetched, such as `10.1.0.0/16`.",
    )
    url_seconds: float = setting(
        "ENGINEHOUSE_URL_SECONDS", 120.0, "Maximum time to fetch a document from a URL, with all redirects.", low=0.1, high=HOUR
    )
    url_bytes: int = setting(
        "ENGINEHOUSE_URL_BYTES", 256 * MIB, "Maximum size of a document that is fetched.", low=1024, high=64 * 1024 * MIB
    )
    url_fetchers: int = setting(
        "ENGINEHOUSE_URL_FETCHERS", 8, "Number of URLs that one io worker fetches at once.", low=1, high=256
    )
    webhook_threads: int = setting("ENGINEHOUSE_WEBHOOK_THREADS", 64, "Concurrent deliveries per io worker.", low=1, high=1024)
    allow_unsafe_redis: bool = setting(
        "ENGINEHOUSE_ALLOW_UNSAFE_REDIS", False, "Start even if Redis may evict jobs or lose them when it restarts."
    )
    engine_hang_seconds: float = setting(
        "ENGINEHOUSE_ENGINE_HANG_SECONDS",
        60.0,
        "How long an engine may be silent, or hold requests without progress, before it is killed and restarted.",
        low=1,
        high=HOUR,
    )
    load_on_demand: bool = setting(
        "ENGINEHOUSE_LOAD_ON_DEMAND",
        True,
        "Load models on empty or idle GPUs when jobs wait for them.",
    )
    keep_alive_seconds: float = setting(
        "ENGINEHOUSE_KEEP_ALIVE_SECONDS",
        0.0,
        "Unload a model after this time without a job; 0 keeps it loaded. Requires loading on demand.",
        low=0,
        high=365 * DAY,
    )
    unschedulable_seconds: float = setting(
        "ENGINEHOUSE_UNSCHEDULABLE_SECONDS",
        600.0,
        "Jobs whose model no live worker can load end as `failed` after this time.",
        low=1,
        high=30 * DAY,
    )
    worker_model: str = setting(
        "ENGINEHOUSE_WORKER_MODEL", "", "The model of this gpu worker. Defaults to the default model of the models file."
    )
    worker_empty: bool = setting(
        "ENGINEHOUSE_WORKER_EMPTY",
        False,
        "Start this gpu worker without a model; it loads one on request or on demand.",
    )
    worker_device: str = setting(
        "ENGINEHOUSE_WORKER_DEVICE",
        "",
        "Comma-separated GPU numbers of this gpu worker, as in `nvidia-smi`. Defaults to GPU 0, or to the CPU without a GPU.",
    )

    @property
    def ocr_language_list(self) -> list[str]:
        """The languages of scans; empty for the engine's default."""
        return [part.strip() for part in self.ocr_languages.split(",") if part.strip()]

    @property
    def gen_ai_metrics(self) -> bool:
        """Whether metrics also have the names of OpenTelemetry's conventions for generative AI."""
        return "gen_ai_latest_experimental" in map(str.strip, self.semantic_conventions.split(","))

    @property
    def prepared_models(self) -> Path:
        """Folder of converted weights and tokenizers, with one subfolder per model."""
        return self.models_dir or self.data_dir / "models"

    @property
    def audit_file(self) -> Path | None:
        """File of the audit log; None for none."""
        return None if self.audit_log == "off" else self.data_dir / self.audit_log

    @property
    def documents_dir(self) -> Path:
        """Folder of uploaded files, page texts and chunks, with one subfolder per document."""
        return self.data_dir / "documents"

    @property
    def trash_dir(self) -> Path:
        """Folder of documents without a record, with one subfolder per day."""
        return self.data_dir / "trash"

    @property
    def files_dir(self) -> Path:
        """The files of ``/v1/files``."""
        return self.data_dir / "files"

    @property
    def request_batches_dir(self) -> Path:
        """Request batches that have not ended: a folder each, with the input and the output so far. On the disk of the files, which
        the input is linked from, and the output is moved to."""
        return self.files_dir / "batches"

    @property
    def archives_dir(self) -> Path:
        """Folder of uploaded archives that are not unpacked yet."""
        return self.data_dir / "archives"

    @property
    def text_index_dir(self) -> Path:
        """Folder of the text indexes, with one file per index."""
        return self.data_dir / "text-index"
