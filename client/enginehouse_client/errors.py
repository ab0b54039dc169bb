"""Every error that the client raises, as one tree.

    EnginehouseError
    ├── APIError                the server refused: status, code, message, param, details
    │   ├── InvalidRequest      400, 413, 422 and other 4xx: sending it again as it is will fail again
    │   ├── Unauthorized        401  no API key, or not one of that server
    │   ├── Forbidden           403
    │   ├── NotFound            404  no such job, document, collection, chat or model
    │   ├── Conflict            409  the thing is in a state that does not allow it
    │   ├── RateLimited         429  a limit is reached, and stayed so over all tries
    │   └── Unavailable         500, 502, 503, 504: the server could not do it, over all tries
    ├── JobFailed               a job that was waited for ended, but not as ``completed``
    ├── ConnectionFailed        there was no answer, over all tries
    ├── Timeout                 what was waited for did not come in time; it may still
    └── InvalidSignature        a webhook was not signed with this secret, or is too old

Requests that were refused are sent again where that can help; what is raised is what the last try met.
"""

from collections.abc import Mapping
from typing import Any


class EnginehouseError(Exception):
    """Base of the tree."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class APIError(EnginehouseError):
    """The server's own words. ``code`` is for programs, ``param`` names the field at fault, ``details`` has what else it
    told, such as ``limit``. ``retry_after`` is in seconds; ``tries`` is how often the request was sent."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        tries: int = 1,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.details = dict(details or {})
        self.retry_after = retry_after
        self.tries = tries

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
    """``job`` is its id, ``status`` how it ended, ``code`` and ``param`` those of its error."""

    def __init__(self, message: str, *, job: str, status: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.job = job
        self.status = status
        self.code = code
        self.param = param


class ConnectionFailed(EnginehouseError):
    """``unsent``: the request cannot have reached the server."""

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
    status: int, body: Mapping[str, Any], *, retry_after: float | None = None, tries: int = 1
) -> APIError | JobFailed:
    """The error that an answer of ``status`` 400 or above stands for; ``body`` may be empty, when a proxy answered."""
    told = body.get("error")
    told = told if isinstance(told, Mapping) else {}
    message = str(told.get("message") or f"the server answered {status}")
    code, param = str(told.get("code") or ""), told.get("param")
    details = {name: value for name, value in told.items() if name not in ("code", "message", "param", "type")}
    # A call that waits for a job tells its failure so; anything else that mentions a job is a refusal of the call itself.
    if status in (422, 502) and "job" in details:
        return JobFailed(message, job=str(details["job"]), status="failed", code=code, param=param)
    kind = _BY_STATUS.get(status, InvalidRequest if status < 500 else Unavailable)
    return kind(message, status=status, code=code, param=param, details=details, retry_after=retry_after, tries=tries)
