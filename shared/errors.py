"""Error classes of the API and of failed jobs, as one tree.

    EnginehouseError
    ├── InvalidRequest           the request is invalid; repeating it unchanged fails again
    │   ├── MalformedBody        400  not JSON, nested too deeply, or not sent as JSON
    │   ├── InvalidValue         422  a field has the wrong type, or is out of its range
    │   ├── PromptTooLong        422  the prompt does not fit the model's context
    │   ├── BodyTooLarge         413
    │   ├── UnsupportedEncoding  415  the body is compressed
    │   ├── RequestTimeout       408  the body did not arrive in time
    │   ├── NotFound             404  no such job, document, collection, session, model or route
    │   ├── MethodNotAllowed     405
    │   ├── Unauthorized         401  no API key, or an unknown one
    │   ├── Forbidden            403  the key does not allow it
    │   ├── Conflict             409  the state of the object does not allow it
    │   │   ├── BatchSealed           no more jobs can join the batch
    │   │   ├── NameTaken             the collection has other bytes under this name, and may not replace them
    │   │   ├── IdempotencyConflict   the key was used for another request; do not retry
    │   │   └── QuotaExceeded         the owner has as many as allowed; delete some
    │   └── TooMany              429  a limit is reached; retry later
    │       ├── TooManyAtOnce         one request is beyond the limit; do not retry
    │       └── BudgetSpent           the tokens of a day or month are used up
    ├── Unavailable              503  the server cannot do it now; retry later
    │   ├── DiskFull             too little space is free to accept more
    │   ├── RedisUnavailable
    │   ├── ModelNotServed       no worker has ever served this model, and none can load it
    │   └── ModelUnavailable     the worker could not load it; its jobs end with this error
    ├── JobFailure               the error of an accepted job; stored with the job, not sent as an HTTP status
    │   └── WorkerLost, EngineFault, OutOfMemory, NanLogits, IndexUnavailable (ReindexNeeded), EmbedderUnavailable,
    │       EmbeddingModelMismatch, JobTimeout, QueueFull, FetchFailed (FetchInterrupted), DocumentRejected
    └── InternalError            500

``code`` is for programs, ``message`` for people; ``param`` names the invalid field. ``docs/http-api.md`` lists statuses and
codes; a test compares the two.
"""

from typing import ClassVar


class EnginehouseError(Exception):
    """Base class. ``as_json`` is the error in HTTP responses and the ``error`` of a job."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    type: ClassVar[str] = "server_error"
    should_retry: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.param = param
        self.retry_after = retry_after
        self.details = details or {}

    def as_json(self) -> dict[str, object]:
        """``code``, ``message``, ``param``, ``type``, and the details if there are any."""
        return {"code": self.code, "message": self.message, "param": self.param, "type": self.type, **self.details}


class InvalidRequest(EnginehouseError):
    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class MalformedBody(InvalidRequest):
    code = "malformed_body"


class InvalidValue(InvalidRequest):
    status = 422
    code = "invalid_value"


class PromptTooLong(InvalidRequest):
    status = 422
    code = "prompt_too_long"


class RequestTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"


class BodyTooLarge(InvalidRequest):
    status = 413
    code = "body_too_large"


class UnsupportedEncoding(InvalidRequest):
    status = 415
    code = "unsupported_encoding"


class NotFound(InvalidRequest):
    status = 404
    code = "not_found"


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"


class Unauthorized(InvalidRequest):
    status = 401
    code = "unauthorized"


class Forbidden(InvalidRequest):
    status = 403
    code = "forbidden"


class Conflict(InvalidRequest):
    status = 409
    code = "conflict"


class BatchSealed(Conflict):
    code = "batch_sealed"


class NameTaken(Conflict):
    """``document`` is the id of the document that has the name."""

    code = "name_taken"
    should_retry = False

    def __init__(self, name: str, document: str) -> None:
        super().__init__(
            f"The collection already has another file under the name {name!r}, document {document}. "
            "Allow its replacement, or use another name.",
            details={"name": name, "document": document},
        )


class IdempotencyConflict(Conflict):
    code = "idempotency_conflict"
    should_retry = False


class QuotaExceeded(Conflict):
    """``quota`` is a name in ``shared.settings.OWNER_LIMITS``, ``limit`` its value for the owner of the request."""

    code = "quota_exceeded"
    should_retry = False

    def __init__(self, quota: str, limit: int) -> None:
        super().__init__(
            f"{quota}: the limit of your account is {limit}. Delete some, or ask the operator of the server for a higher limit.",
            details={"quota": quota, "limit": limit},
        )


class TooMany(InvalidRequest):
    status = 429
    code = "too_many"


class TooManyAtOnce(TooMany):
    """One request that no free space is enough for."""

    should_retry = False


class BudgetSpent(TooMany):
    """``quota`` is a limit of tokens per day or month, ``limit`` its value, ``left`` the remaining tokens."""

    code = "quota_exceeded"
    # OpenAI's name for it. OpenAI's clients do not retry it.
    type = "insufficient_quota"
    should_retry = False


class Unavailable(EnginehouseError):
    status = 503
    code = "unavailable"
    type = "unavailable_error"


class DiskFull(Unavailable):
    code = "disk_full"


class RedisUnavailable(Unavailable):
    code = "redis_unavailable"


class ModelNotServed(Unavailable):
    code = "model_not_served"


class ModelUnavailable(Unavailable):
    code = "model_unavailable"


class JobFailure(EnginehouseError):
    """Base class of errors that end a job as ``failed``.

    ``retryable``: another attempt may succeed. ``outage``: a service that the job needs is away, so another attempt will succeed once
    it is back; it is not counted as a retry.
    """

    code = "job_failed"
    type = "job_error"
    retryable: ClassVar[bool] = False
    outage = False


class WorkerLost(JobFailure):
    code = "worker_lost"


class EngineFault(JobFailure):
    code = "engine_fault"
    retryable = True


class OutOfMemory(JobFailure):
    code = "out_of_memory"


class NanLogits(JobFailure):
    code = "nan_logits"


class IndexUnavailable(JobFailure):
    """The index cannot be used: its server is away (``outage``), or it answers with an error."""

    code = "index_unavailable"
    retryable = True

    def __init__(self, message: str, *, outage: bool = False) -> None:
        super().__init__(message)
        self.outage = outage


class ReindexNeeded(IndexUnavailable):
    """The index, or a half of it, is missing or damaged, and another attempt would find it so too."""

    retryable = False


class EmbedderUnavailable(JobFailure):
    """The embedding server cannot be used: it is away (``outage``), or it ends whenever it works for this job."""

    code = "embedder_unavailable"
    retryable = True

    def __init__(self, message: str, *, outage: bool = False) -> None:
        super().__init__(message)
        self.outage = outage


class EmbeddingModelMismatch(JobFailure):
    code = "embedding_model_mismatch"


class JobTimeout(JobFailure):
    code = "timeout"


class QueueFull(JobFailure):
    code = "queue_full"
    retryable = True


class FetchFailed(JobFailure):
    """A URL cannot be fetched, and another attempt would not change that."""

    code = "fetch_failed"


class FetchInterrupted(FetchFailed):
    """A URL could not be fetched this time."""

    retryable = True


class DocumentRejected(JobFailure):
    """A document cannot become ``ready``. ``code`` is its final status."""

    code = "document_rejected"


class InternalError(EnginehouseError):
    pass


class SettingsError(Exception):
    """The settings are invalid. ``problems`` has one sentence per invalid value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
