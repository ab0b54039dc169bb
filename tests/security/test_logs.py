"""What a client sends cannot add lines to the log or control a terminal, and a malformed header is no internal error."""

import io
import logging

import pytest
from flask.testing import FlaskClient

from shared.logs import LineFormatter

HOSTILE = "x failed\n12:00:00.000 INFO    api.auth: key of root created\x1b]0;owned\x07\x1b[31m\r\x85\u2028\u202eend"


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(log: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(log)
    handler.setFormatter(LineFormatter())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    return logger


def printable(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_a_record_is_one_printable_line(logger: logging.Logger, log: io.StringIO) -> None:
    logger.warning("GET %s", HOSTILE)
    assert log.getvalue().count("\n") == 1
    assert printable(log.getvalue())
    assert r"x failed\n12:00:00.000" in log.getvalue()
    assert "Grüße" in (logger.warning("Grüße"), log.getvalue())[1]


def test_the_lines_of_a_traceback_are_indented(logger: logging.Logger, log: io.StringIO) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("failed")
    first, *rest = log.getvalue().rstrip("\n").split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in rest)
    assert printable(log.getvalue())


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "null", "\x85"])
def test_a_malformed_origin_is_refused_on_every_path(client: FlaskClient, origin: str) -> None:
    for path in ("/jobs", "/nothing", "/health/live"):
        assert client.get(path, headers={"Origin": origin}).status_code == 403


def test_an_internal_error_logs_its_path_quoted(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(client.application.extensions["enginehouse"].authenticator, "authenticate", fail)
    answer = client.get("/documents/doc%0a12:00 INFO%1b[31m", headers={"x-request-id": "r-17"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "r-17")
    assert caplog.messages == [r"GET '/documents/doc\n12:00 INFO\x1b[31m' failed"]
    assert LineFormatter().format(caplog.records[0]).splitlines()[0].endswith(" failed [r-17]")
