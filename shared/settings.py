"""Every setting, read once from the environment and frozen.

Nothing else reads ``os.environ``. A value that cannot be used stops the process before it starts, with one sentence
for each bad value; unknown ``ENGINEHOUSE_*`` names are refused too, as a misspelt limit is a limit that does not hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shared.errors import SettingsError
from shared.packaged_files import packaged_file

MIB = 1024 * 1024
HOUR = 3600
DAY = 24 * HOUR

# Where the command finds a server, and its key: no process reads them, and none must be kept from starting by them.
OF_THE_COMMAND = ("ENGINEHOUSE_URL", "ENGINEHOUSE_API_KEY")


def setting(
    name: str, default: Any, doc: str, *, low: float | None = None, high: float | None = None, one_of: tuple[str, ...] = ()
) -> Any:
    """A field of ``Settings``: its environment variable, default, meaning (with its unit) and limits."""
    return field(default=default, metadata={"name": name, "doc": doc, "low": low, "high": high, "one_of": one_of})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process. ``Settings()`` has the defaults; ``from_environment`` is the usual way in."""

    data_dir: Path = setting(
        "ENGINEHOUSE_DATA", Path(".enginehouse"), "Folder for all state: Redis' files, the index, uploads, prepared models."
    )
    redis_url: str = setting(
        "REDIS_URL", "redis://127.0.0.1:6379/0", "The Redis that holds jobs. When set, `enginehouse up` starts none."
    )
    chroma_url: str = setting("ENGINEHOUSE_CHROMA_URL", "http://127.0.0.1:8000", "The Chroma server that owns the index.")
    host: str = setting("ENGINEHOUSE_HOST", "127.0.0.1", "Address that the API listens on.")
    port: int = setting("ENGINEHOUSE_PORT", 5000, "Port that the API listens on.", low=1, high=65535)
    allow_open: bool = setting(
        "ENGINEHOUSE_ALLOW_OPEN",
        False,
        "Allow an address other than loopback although nobody has to log in. For containers whose port is published on loopback only.",
    )
    models_file: Path = setting(
        "ENGINEHOUSE_MODELS_FILE",
        packaged_file("models.json"),
        "The models file; by default `models.json` in the current folder, or else the one that ships with Enginehouse.",
    )
    models_dir: Path | None = setting(
        "ENGINEHOUSE_MODELS_DIR", None, "Folder for prepared models; by default `models` in the data folder."
    )
    engine: str = setting(
        "ENGINEHOUSE_ENGINE",
        "",
        "Run every model on this engine instead of the one its entry names.",
        one_of=("", "echo", "transformers"),
    )
    cors_origins: str = setting(
        "ENGINEHOUSE_CORS_ORIGINS", "", "Origins, separated by commas, whose pages may call the API; none by default."
    )
    log_level: str = setting("ENGINEHOUSE_LOG_LEVEL", "INFO", "How much is logged.", one_of=("DEBUG", "INFO", "WARNING", "ERROR"))

    lease_seconds: float = setting(
        "ENGINEHOUSE_LEASE_SECONDS", 30.0, "How long a claimed job stays with a worker that has fallen silent.", low=1, high=HOUR
    )
    renew_seconds: float = setting("ENGINEHOUSE_RENEW_SECONDS", 5.0, "How often a worker renews its leases.", low=0.1, high=600)
    maintenance_seconds: float = setting(
        "ENGINEHOUSE_MAINTENANCE_SECONDS", 1.0, "How often each worker looks for jobs that need attention.", low=0.05, high=60
    )
    canary_seconds: float = setting(
        "ENGINEHOUSE_CANARY_SECONDS", 30.0, "How often each worker is sent a canary ticket.", low=1, high=600
    )
    max_attempts: int = setting(
        "ENGINEHOUSE_MAX_ATTEMPTS", 3, "Attempts that a job may lose to dying workers before it ends `failed`.", low=1, high=100
    )
    max_retries: int = setting(
        "ENGINEHOUSE_MAX_RETRIES", 3, "Retries of a job after faults of the engine or of a service.", low=0, high=100
    )
    max_queue_seconds: int = setting(
        "ENGINEHOUSE_MAX_QUEUE_SECONDS", DAY, "A job that nobody has started by then ends `expired`.", low=1, high=30 * DAY
    )
    drain_seconds: float = setting(
        "ENGINEHOUSE_DRAIN_SECONDS", 20.0, "How long a stopping worker lets its running jobs go on.", low=0, high=HOUR
    )
    max_queued: int = setting(
        "ENGINEHOUSE_MAX_QUEUED", 100_000, "Jobs that may wait in one queue; more are refused with 429.", low=1, high=10_000_000
    )
    max_queued_per_owner: int = setting(
        "ENGINEHOUSE_MAX_QUEUED_PER_OWNER", 50_000, "Jobs of one owner that may wait in one queue.", low=1, high=10_000_000
    )
    job_retention_seconds: int = setting(
        "ENGINEHOUSE_JOB_RETENTION_SECONDS", 7 * DAY, "How long an ended job is kept.", low=60, high=365 * DAY
    )
    seal_seconds: float = setting(
        "ENGINEHOUSE_SEAL_SECONDS",
        3600.0,
        "How long a batch that is left open waits for more jobs once those that it has have ended; then it is sealed.",
        low=1,
        high=30 * DAY,
    )
    event_limit: int = setting("ENGINEHOUSE_EVENT_LIMIT", 10_000, "Events kept for each job.", low=100, high=1_000_000)
    session_seconds: int = setting(
        "ENGINEHOUSE_SESSION_SECONDS", DAY, "How long an unused chat session is kept.", low=60, high=365 * DAY
    )
    max_wait_seconds: int = setting(
        "ENGINEHOUSE_MAX_WAIT_SECONDS", 60, "The longest that one request waits for a job.", low=1, high=600
    )
    chat_wait_seconds: int = setting(
        "ENGINEHOUSE_CHAT_WAIT_SECONDS", 300, "How long the chat calls wait for their answer.", low=1, high=HOUR
    )
    api_workers: int = setting("ENGINEHOUSE_API_WORKERS", 2, "Processes of the API.", low=1, high=64)
    api_threads: int = setting(
        "ENGINEHOUSE_API_THREADS",
        1024,
        "Threads of each API process, made as they are needed; each waiting client holds one, and four fifths may wait.",
        low=4,
        high=4096,
    )
    cpu_workers: int = setting("ENGINEHOUSE_CPU_WORKERS", 2, "Processes that parse, chunk and embed documents.", low=1, high=256)
    io_workers: int = setting("ENGINEHOUSE_IO_WORKERS", 16, "Threads that retrieve and delete.", low=1, high=1024)

    max_body_bytes: int = setting("ENGINEHOUSE_MAX_BODY_BYTES", 8 * MIB, "The largest JSON body.", low=1024, high=1024 * MIB)
    max_upload_bytes: int = setting(
        "ENGINEHOUSE_MAX_UPLOAD_BYTES", 1024 * MIB, "The largest upload request.", low=1024, high=64 * 1024 * MIB
    )
    max_archive_members: int = setting(
        "ENGINEHOUSE_MAX_ARCHIVE_MEMBERS", 20_000, "The most files in one archive that is uploaded.", low=1, high=1_000_000
    )
    max_archive_bytes: int = setting(
        "ENGINEHOUSE_MAX_ARCHIVE_BYTES",
        8 * 1024 * MIB,
        "The most bytes that an archive may unpack to.",
        low=1024,
        high=1024 * 1024 * MIB,
    )
    max_archive_ratio: int = setting(
        "ENGINEHOUSE_MAX_ARCHIVE_RATIO",
        200,
        "How many times its size an archive above 16 MiB may unpack to.",
        low=1,
        high=100_000,
    )
    max_prompt_characters: int = setting(
        "ENGINEHOUSE_MAX_PROMPT_CHARACTERS", 2_000_000, "The longest prompt, over all its messages.", low=1, high=64 * MIB
    )
    max_pages: int = setting("ENGINEHOUSE_MAX_PAGES", 20_000, "The most pages of one document.", low=1, high=10_000_000)
    max_page_characters: int = setting(
        "ENGINEHOUSE_MAX_PAGE_CHARACTERS", 1_000_000, "The most characters of one page.", low=1000, high=64 * MIB
    )
    parse_seconds: float = setting(
        "ENGINEHOUSE_PARSE_SECONDS",
        300.0,
        "The longest that parsing one document, or 200 pages of a long one, may take.",
        low=1,
        high=DAY,
    )
    parse_memory_bytes: int = setting(
        "ENGINEHOUSE_PARSE_MEMORY_BYTES",
        1024 * MIB,
        "The most memory that parsing one document may take.",
        low=128 * MIB,
        high=256 * 1024 * MIB,
    )
    chunk_tokens: int = setting(
        "ENGINEHOUSE_CHUNK_TOKENS", 200, "Size of a chunk in tokens of the embedding model.", low=16, high=8192
    )
    chunk_overlap_tokens: int = setting(
        "ENGINEHOUSE_CHUNK_OVERLAP_TOKENS", 20, "Tokens that a chunk repeats of the one before it.", low=0, high=4096
    )
    embedding_device: str = setting(
        "ENGINEHOUSE_EMBEDDING_DEVICE",
        "",
        "Where embedding models run; by default on a GPU with 4 GiB free memory if there is one, else on the CPU.",
        one_of=("", "cpu", "cuda"),
    )
    retrieve_top_k: int = setting(
        "ENGINEHOUSE_RETRIEVE_TOP_K", 3, "Chunks given to the model when a request does not say how many.", low=1, high=100
    )
    default_collection: str = setting(
        "ENGINEHOUSE_DEFAULT_COLLECTION", "default", "The collection of `/upload` and of `use_rag`."
    )
    webhook_allow: str = setting(
        "ENGINEHOUSE_WEBHOOK_ALLOW",
        "",
        "Address ranges, separated by commas, that webhooks may call although they are not public, such as `10.1.0.0/16`.",
    )
    webhook_seconds: float = setting(
        "ENGINEHOUSE_WEBHOOK_SECONDS", 15.0, "How long one try at a webhook may take, answer and all.", low=0.1, high=600
    )
    webhook_threads: int = setting(
        "ENGINEHOUSE_WEBHOOK_THREADS", 64, "Webhooks that one io worker calls at once.", low=1, high=1024
    )
    allow_unsafe_redis: bool = setting(
        "ENGINEHOUSE_ALLOW_UNSAFE_REDIS", False, "Start although Redis may evict jobs or forget them at a restart."
    )
    engine_hang_seconds: float = setting(
        "ENGINEHOUSE_ENGINE_HANG_SECONDS",
        60.0,
        "How long an engine may be silent, or hold requests without a step, before it is killed and started again.",
        low=1,
        high=HOUR,
    )
    load_on_demand: bool = setting(
        "ENGINEHOUSE_LOAD_ON_DEMAND",
        True,
        "Load a model that jobs wait for where a GPU is empty or its model has nothing to do.",
    )
    keep_alive_seconds: float = setting(
        "ENGINEHOUSE_KEEP_ALIVE_SECONDS",
        0.0,
        "A model without a job for this long is unloaded until one comes; 0 keeps it. Needs loading on demand.",
        low=0,
        high=365 * DAY,
    )
    unschedulable_seconds: float = setting(
        "ENGINEHOUSE_UNSCHEDULABLE_SECONDS",
        600.0,
        "Jobs whose model no living worker could hold end `failed` after this time.",
        low=1,
        high=30 * DAY,
    )
    worker_model: str = setting(
        "ENGINEHOUSE_WORKER_MODEL", "", "The model of this model worker; by default the default one of the list."
    )
    worker_empty: bool = setting(
        "ENGINEHOUSE_WORKER_EMPTY",
        False,
        "Start this model worker without a model; it takes one when it is told or a job needs one.",
    )
    worker_device: str = setting(
        "ENGINEHOUSE_WORKER_DEVICE",
        "",
        "The GPUs of this model worker, separated by commas, as `nvidia-smi` counts; by default GPU 0, or the CPU where there is none.",
    )

    @property
    def prepared_models(self) -> Path:
        """Where converted weights and tokenizers lie, one folder a model."""
        return self.models_dir or self.data_dir / "models"

    @property
    def documents_dir(self) -> Path:
        """Where uploaded bytes, page texts and chunks lie, one folder a document."""
        return self.data_dir / "documents"

    @property
    def archives_dir(self) -> Path:
        """Where uploaded archives wait to be unpacked, one folder each."""
        return self.data_dir / "archives"

    @property
    def text_index_dir(self) -> Path:
        """Where the text indexes lie, one file for each."""
        return self.data_dir / "text-index"


def from_environment(environment: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from environment variables; ``overrides`` (command line options) win.

    Raises SettingsError naming every value that cannot be used, not only the first.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    known = {item.metadata["name"]: item for item in fields(Settings)}
    for name in environment:
        if name.startswith("ENGINEHOUSE_") and name not in known and name not in OF_THE_COMMAND:
            problems.append(f"{name} is not a setting (see docs/settings.md)")
    for name, item in known.items():
        if item.name not in overrides and environment.get(name, "") != "":
            try:
                values[item.name] = _parse(item, environment[name])
            except ValueError as error:
                problems.append(f"{name}={environment[name]!r}: {error}")
    values.update(overrides)
    if "models_file" not in values and Path("models.json").exists():
        values["models_file"] = Path("models.json").resolve()
    if problems:
        raise SettingsError(problems)
    settings = Settings(**values)
    problems = _contradictions(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def to_environment(settings: Settings) -> dict[str, str]:
    """The environment variables that make another process read these very settings."""
    result = {}
    for item in fields(Settings):
        value = getattr(settings, item.name)
        if value is not None:
            result[item.metadata["name"]] = ("1" if value else "0") if isinstance(value, bool) else str(value)
    return result


def _parse(item: Any, text: str) -> Any:
    kind, limits = item.type, item.metadata
    value: Any
    if kind is bool:
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        if text.lower() not in words:
            raise ValueError("must be 1 or 0")
        return words[text.lower()]
    if kind is int or kind is float:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"must be a{'n integer' if kind is int else ' number'}") from None
        if not limits["low"] <= value <= limits["high"]:
            raise ValueError(f"must be between {limits['low']} and {limits['high']}")
        return value
    if kind is Path or kind == Path | None:
        return Path(text)
    if limits["one_of"] and text not in limits["one_of"]:
        raise ValueError(f"must be one of {', '.join(repr(word) for word in limits['one_of'])}")
    return text


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.renew_seconds * 2 > settings.lease_seconds:
        problems.append(
            "ENGINEHOUSE_RENEW_SECONDS must be at most half of ENGINEHOUSE_LEASE_SECONDS, or one late renewal loses jobs"
        )
    if settings.chunk_overlap_tokens * 2 > settings.chunk_tokens:
        problems.append("ENGINEHOUSE_CHUNK_OVERLAP_TOKENS must be at most half of ENGINEHOUSE_CHUNK_TOKENS")
    for part in filter(None, map(str.strip, settings.webhook_allow.split(","))):
        try:
            ip_network(part)
        except ValueError as error:
            problems.append(f"ENGINEHOUSE_WEBHOOK_ALLOW: {error}")
    for origin in filter(None, map(str.strip, settings.cors_origins.split(","))):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}":
            problems.append(f"ENGINEHOUSE_CORS_ORIGINS: must be origins such as https://app.example.org, not {origin!r}")
    if urlsplit(settings.redis_url).scheme not in ("redis", "rediss", "unix"):
        problems.append(f"REDIS_URL must start with redis://, rediss:// or unix://, not {settings.redis_url.split(':')[0]!r}")
    if urlsplit(settings.chroma_url).scheme not in ("http", "https"):
        problems.append("ENGINEHOUSE_CHROMA_URL must start with http:// or https://")
    return problems
