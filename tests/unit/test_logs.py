"""Logs as text and as JSON, with the ids of what a thread works on, and levels of single loggers."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from cli.local.console_log import ConsoleLog, json_line
from shared import logs
from shared.errors import SettingsError
from shared.settings_sources import from_environment
from shared.work_context import WorkContext, current_work, set_traceparent, valid_traceparent, working_on

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
WORK = WorkContext(request_id="req_1", job="job_1", traceparent=PARENT)


@pytest.fixture
def capture() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.Logger("workers.test")
    logger.addHandler(handler)
    return logger, stream


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_have_the_ids_of_request_job_and_trace(capture: tuple[logging.Logger, io.StringIO], form: str) -> None:
    logger, stream = capture
    logger.handlers[0].setFormatter(logs.make_formatter(form))
    logger.warning("outside")
    with working_on(WORK):
        logger.warning("inside, %s", "job_1")
    outside, inside = stream.getvalue().splitlines()
    assert "req_1" not in outside
    if form == "text":
        assert inside.endswith(f"inside, job_1 [req_1 {TRACE}]"), "an id that the message has is not repeated"
        return
    entry = json.loads(inside)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "workers.test", "inside, job_1")
    assert (entry["request_id"], entry["job"], entry["trace_id"]) == ("req_1", "job_1", TRACE)
    assert entry["time"].endswith("Z")
    assert "T" in entry["time"]


def test_json_stays_on_one_line_whatever_a_client_sends(capture: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = capture
    logger.handlers[0].setFormatter(logs.JsonFormatter())
    try:
        raise ValueError("a\nb\x1b[31m\u2028")
    except ValueError:
        logger.exception("GET %s", "x\r\ny\x85")
    [line] = stream.getvalue().split("\n")[:-1]
    assert line.isascii()
    assert line.isprintable()
    entry = json.loads(line)
    assert entry["message"] == "GET x\r\ny\x85"
    assert "ValueError" in entry["traceback"]


def test_lines_of_an_attempt_are_kept_for_the_log_of_its_job_and_bounded() -> None:
    logger = logging.Logger("workers.cpu.ingest", logging.DEBUG)
    logger.addHandler(logs.LineCollector(logging.INFO))
    work = WorkContext(job="job_1", lines=[])
    logger.info("outside of an attempt")
    with working_on(work):
        logger.debug("too detailed")
        for number in range(200):
            logger.info("step %d", number)
        logging.Logger("urllib3").info("another's")
    assert work.lines is not None
    assert len(work.lines) == 100
    assert (work.lines[0].message, work.lines[0].level) == ("step 0", "info")
    assert current_work() == WorkContext()


def test_levels_of_single_loggers() -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logs.configure("WARNING", levels="workers.cpu=DEBUG, kombu=info")
        assert logging.getLogger("workers.cpu.ingest").getEffectiveLevel() == logging.DEBUG
        assert logging.getLogger("workers.io").getEffectiveLevel() == logging.WARNING
        assert logging.getLogger("kombu").level == logging.INFO
        assert logging.getLogger("filelock").level == logging.WARNING
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in ("workers.cpu", "kombu"):
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.parametrize("levels", ["workers.cpu", "=DEBUG", "api=LOUD"])
def test_a_wrong_level_stops_the_process_before_it_starts(levels: str) -> None:
    with pytest.raises(SettingsError, match="ENGINEHOUSE_LOG_LEVELS"):
        from_environment({"ENGINEHOUSE_LOG_LEVELS": levels})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PARENT.upper(),
        PARENT + "\n",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        "01" + PARENT[2:],
    ],
)
def test_what_is_no_traceparent_is_ignored(text: str) -> None:
    assert valid_traceparent(text) == ""
    assert valid_traceparent(PARENT) == PARENT


def test_a_later_span_continues_the_work() -> None:
    later = PARENT.replace("00f067aa0ba902b7", "1" * 16)
    with working_on(WORK):
        set_traceparent(later)
        assert (current_work().traceparent, current_work().trace_id, current_work().job) == (later, TRACE, "job_1")


def test_up_names_the_process_of_each_json_line() -> None:
    stream = io.StringIO()
    log = ConsoleLog(stream, form="json")
    log.line("gpu0", '{"time": "2026-01-01T00:00:00.000Z", "level": "info", "message": "ready"}')
    log.line("redis", "* Ready to accept \x1b[31mconnections")
    log.say("Enginehouse is ready")
    log.flush()
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(entry["process"], entry["message"]) for entry in entries] == [
        ("gpu0", "ready"),
        ("redis", "* Ready to accept connections"),
        ("up", "Enginehouse is ready"),
    ]
    assert entries[0]["time"] == "2026-01-01T00:00:00.000Z"
    assert json.loads(json_line("api", "[1, 2]"))["message"] == "[1, 2]"
