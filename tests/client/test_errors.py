"""Each status becomes one kind of error, and the drawing at the top of the module is true."""

import re
from collections.abc import Iterator

import pytest

import enginehouse_client
from enginehouse_client import errors
from enginehouse_client.errors import APIError, EnginehouseError, JobFailed, error_from_status
from shared.errors import EnginehouseError as ServersError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (405, errors.InvalidRequest),
        (409, errors.Conflict),
        (413, errors.InvalidRequest),
        (422, errors.InvalidRequest),
        (429, errors.RateLimited),
        (500, errors.Unavailable),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
    ],
)
def test_a_status_is_an_error(status: int, kind: type[APIError]) -> None:
    error = error_from_status(
        status, {"error": {"code": "c", "message": "m", "param": "p", "type": "t", "limit": 3}}, retry_after=2
    )
    assert type(error) is kind
    assert isinstance(error, APIError)
    assert (error.status, error.code, error.message, error.param, error.details, error.retry_after) == (
        *(status, "c", "m", "p", {"limit": 3}, 2),
    )
    assert str(error) == f"m ({status} c)"


def test_an_answer_of_a_proxy_is_an_error_too() -> None:
    assert str(error_from_status(502, {})) == "the server answered 502 (502)"


def test_a_job_that_a_call_waited_for_fails_as_a_job() -> None:
    error = error_from_status(
        422, {"error": {"code": "prompt_too_long", "message": "m", "param": "prompt", "type": "t", "job": "job_1"}}
    )
    assert isinstance(error, JobFailed)
    assert (error.job, error.code) == ("job_1", "prompt_too_long")
    assert isinstance(
        error_from_status(409, {"error": {"code": "idempotency_conflict", "message": "m", "job": "job_1"}}), errors.Conflict
    )


def below(kind: type[EnginehouseError]) -> Iterator[type[EnginehouseError]]:
    """The subclasses in the client; the command, which other tests import, has some too."""
    for child in kind.__subclasses__():
        if child.__module__.startswith("enginehouse_client"):
            yield child
            yield from below(child)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)\b", line):
            drawn.append((len(found[1]) // 4, found[2]))
    real = {kind.__name__: len(kind.__mro__) - len(EnginehouseError.__mro__) for kind in below(EnginehouseError)}
    assert {name: depth for depth, name in drawn} == {"EnginehouseError": 0, **real}


def test_every_error_is_exported() -> None:
    assert {kind.__name__ for kind in below(EnginehouseError)} <= set(enginehouse_client.__all__)


def test_every_status_of_the_server_is_known() -> None:
    def statuses(kind: type[ServersError]) -> set[int]:
        return {kind.status}.union(*(statuses(child) for child in kind.__subclasses__()))

    # These two only answer calls of /v1, which this client does not make.
    assert statuses(ServersError) - {499, 504} <= {400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 502, 503}
