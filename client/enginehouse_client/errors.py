"""The exceptions of the client.

    EnginehouseError
    ├── APIError                the server returned an error: status, code, message, param, details
    │   ├── InvalidRequest      400, 408, 413, 415, 422 and other 4xx: the same request would fail again
    │   ├── Unauthorized        401  the API key is missing or invalid
    │   ├── Forbidden           403
    │   ├── NotFound            404  no such job, document, collection, chat or model
    │   ├── Conflict            409  the current state does not allow the operation
    │   ├── RateLimited         429  a limit was reached, after all retries
    │   └── Unavailable         500, 502, 503, 504: the server failed, after all retries
    ├── JobFailed               the job ended without completing
    ├── ConnectionFailed        no response, after all retries
    ├── Timeout                 the wait ended first; the job continues
    └── InvalidSignature        the webhook is not signed with this secret, or is too old

Requests are retried where that can help; the exception describes the last attempt.
"""

from collections.abc import Mapping
from typing import Any


class EnginehouseError(Exception):
    """Base class of all exceptions of the client."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class APIError(EnginehouseError):
    """An error response of the server. ``code`` is for programs, ``param`` names the invalid field, and ``details`` holds other
    fields such as ``limit``. ``retry_after`` is in seconds; ``attempts`` counts how often the request was sent."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.details = dict(details or {})
        self.retry_after = retry_after
        self.attempts = attempts

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.code})" if self.code else f"{self.message} ({self.status})"


class InvalidRequest(APIError):
    pass


class Unauthorized(APIError):
    pass


class Forbidden(APIError):
    pass


class NotFound(APIError):
    pass


class Conflict(APIError):
    pass


class RateLimited(APIError):
    pass


class Unavailable(APIError):
    pass


class JobFailed(EnginehouseError):
    """A job that did not complete. ``job`` is its id, ``status`` its final status; ``code`` and ``param`` are those of its error."""

    def __init__(self, message: str, *, job: str, status: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.job = job
        self.status = status
        self.code = code
        self.param = param


class ConnectionFailed(EnginehouseError):
    """No response. ``unsent``: the request cannot have reached the server."""

    def __init__(self, message: str, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent


class Timeout(EnginehouseError):
    pass


class InvalidSignature(EnginehouseError):
    pass


_BY_STATUS: Mapping[int, type[APIError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}


def error_from_status(
    status: int, body: Mapping[str, Any], *, retry_after: float | None = None, attempts: int = 1
) -> APIError | JobFailed:
    """The exception for a response with ``status`` 400 or above. ``body`` is empty if a proxy answered."""
    error = body.get("error")
    error = error if isinstance(error, Mapping) else {}
    message = str(error.get("message") or f"the server answered {status}")
    code, param = str(error.get("code") or ""), error.get("param")
    details = {name: value for name, value in error.items() if name not in ("code", "message", "param", "type")}
    # With these statuses a call that waited for a job reports that the job failed. Other errors that name a job are about the call.
    if status in (422, 502) and "job" in details:
        return JobFailed(message, job=str(details["job"]), status="failed", code=code, param=param)
    kind = _BY_STATUS.get(status, InvalidRequest if status < 500 else Unavailable)
    return kind(message, status=status, code=code, param=param, details=details, retry_after=retry_after, attempts=attempts)
