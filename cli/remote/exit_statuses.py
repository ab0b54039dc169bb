"""Exit statuses of the commands; docs/command.md lists them."""

from enginehouse_client import (
    APIError,
    ConnectionFailed,
    EnginehouseError,
    JobFailed,
    NotFound,
    RateLimited,
    Timeout,
    Unavailable,
)

REFUSED = 1
USAGE = 2
NOT_COMPLETED = 3
NOT_FOUND = 4
UNAVAILABLE = 5
NOT_IN_TIME = 6
INTERRUPTED = 130

_OF_ERRORS: tuple[tuple[type[EnginehouseError], int], ...] = (
    (JobFailed, NOT_COMPLETED),
    (NotFound, NOT_FOUND),
    (RateLimited, UNAVAILABLE),
    (Unavailable, UNAVAILABLE),
    (ConnectionFailed, UNAVAILABLE),
    (Timeout, NOT_IN_TIME),
    (APIError, REFUSED),
)


def status_of(error: EnginehouseError) -> int:
    """The exit status for an error of the client."""
    return next((status for kind, status in _OF_ERRORS if isinstance(error, kind)), REFUSED)
