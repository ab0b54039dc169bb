"""Every error that a client can meet, as one tree.

    EnginehouseError
    ├── InvalidRequest           the request is at fault; sending it again as it is will fail again
    │   ├── MalformedBody        400  not JSON, nested too deep, not the promised content type
    │   ├── InvalidValue         422  a field has the wrong type, or is out of its range
    │   ├── PromptTooLong        422  the prompt does not fit the model's context
    │   ├── BodyTooLarge         413
    │   ├── NotFound             404  no such job, document, collection, session, model or route
    │   ├── MethodNotAllowed     405
    │   ├── Unauthorized         401  no API key, or not one of ours
    │   ├── Forbidden            403  the key does not allow it
    │   ├── Conflict             409  the thing is in a state that does not allow it
    │   │   └── IdempotencyConflict   the key was used for another request; do not retry
    │   └── TooMany              429  a limit is reached; later there is room again
    ├── Unavailable              503  the server cannot do it now; try again
    │   ├── RedisUnavailable
    │   ├── ModelNotServed       no worker has ever held this model, and none could be given it
    │   └── ModelUnavailable     its worker could not load it: how its jobs end
    ├── JobFailure               how an accepted job can fail; stored on the job, never an HTTP status
    │   └── WorkerLost, EngineFault, OutOfMemory, NanLogits, IndexUnavailable, EmbeddingModelMismatch,
    │       JobTimeout, DocumentRejected
    └── InternalError            500

``code`` is for programs, ``message`` for people; ``param`` names the field at fault. Statuses and codes are listed in
``docs/http-api.md``; a test compares the two.
"""

from typing import ClassVar


class EnginehouseError(Exception):
    """Base of the tree. ``as_json`` is the body of the HTTP answer and of a job's ``error``."""

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
        """``{"code", "message", "param", "type"}`` and the details, if any."""
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


class BodyTooLarge(InvalidRequest):
    status = 413
    code = "body_too_large"


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


class IdempotencyConflict(Conflict):
    code = "idempotency_conflict"
    should_retry = False


class TooMany(InvalidRequest):
    status = 429
    code = "too_many"


class Unavailable(EnginehouseError):
    status = 503
    code = "unavailable"
    type = "unavailable_error"


class RedisUnavailable(Unavailable):
    code = "redis_unavailable"


class ModelNotServed(Unavailable):
    code = "model_not_served"


class ModelUnavailable(Unavailable):
    code = "model_unavailable"


class JobFailure(EnginehouseError):
    """Ends a job ``failed``. ``retryable`` says whether another attempt may succeed."""

    code = "job_failed"
    type = "job_error"
    retryable: ClassVar[bool] = False


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
    code = "index_unavailable"
    retryable = True


class EmbeddingModelMismatch(JobFailure):
    code = "embedding_model_mismatch"


class JobTimeout(JobFailure):
    code = "timeout"


class QueueFull(JobFailure):
    code = "queue_full"
    retryable = True


class DocumentRejected(JobFailure):
    """A document that cannot become ``ready``; ``code`` is the status it ends with."""

    code = "document_rejected"


class InternalError(EnginehouseError):
    pass


class SettingsError(Exception):
    """The settings do not allow a start. ``problems`` has one sentence for each bad value."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
