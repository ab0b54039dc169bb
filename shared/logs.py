"""Logging setup: one format for all processes, with time, level, logger, message, and the ids of request, job and trace.

Log lines identify jobs and documents by id. Prompts, results and document texts are never logged. What a client sent, such as a path,
cannot add lines to the log or control a terminal.
"""

import json
import logging
import re
import sys
import time
from typing import Any

from shared.work_context import MAX_CHARACTERS, MAX_LINES, LogLine, current_work

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"

# Control characters of ASCII and Latin-1, and those of Unicode that separate lines or reorder text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class LineFormatter(logging.Formatter):
    """Formats a record as one line, with control characters escaped, and indents its traceback.

    A line ends with the ids of the request, the job and the trace that its thread works on, as far as the message lacks them.
    """

    def __init__(self) -> None:
        super().__init__(FORMAT, datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        ids = [value for value in _ids(record).values() if value not in record.message]
        return escape_controls(super().formatMessage(record)) + (f" [{' '.join(ids)}]" if ids else "")

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"    {escape_controls(line)}" for line in super().formatException(ei).split("\n"))


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        # ASCII alone, as a terminal may show the line.
        return json.dumps(entry)


def make_formatter(form: str) -> logging.Formatter:
    """The formatter of ``text`` or ``json``."""
    return JsonFormatter() if form == "json" else LineFormatter()


class LineCollector(logging.Handler):
    """Keeps lines of this server's own loggers for the log of the job that their thread works on, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = current_work().lines
        if lines is None or len(lines) >= MAX_LINES or not record.name.startswith(("workers.", "shared.")):
            return
        message = escape_controls(record.getMessage())[:MAX_CHARACTERS]
        lines.append(LogLine(int(record.created * 1000), record.levelname.lower(), message))


def _ids(record: logging.LogRecord) -> dict[str, str]:
    work = current_work()
    ids = {"request_id": getattr(record, "request_id", "") or work.request_id, "job": work.job, "trace_id": work.trace_id}
    return {name: value for name, value in ids.items() if value}


def escape_controls(text: str) -> str:
    """The text with control characters as Python writes them in string literals."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def configure(level: str = "INFO", *, form: str = "text", levels: str = "") -> None:
    """Send all log records of this process to standard error. A second call replaces the first configuration.

    ``form`` is ``text`` or ``json``; ``levels`` has levels of single loggers, as in ``workers.cpu=DEBUG,kombu=INFO``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_formatter(form))
    root = logging.getLogger()
    root.handlers[:] = [handler, LineCollector(logging.INFO)]
    root.setLevel(level)
    # These libraries log every request, file or message at INFO, which hides the lines that operators need.
    libraries = ("httpx", "httpcore", "httpx2", "httpcore2", "urllib3", "chromadb", "sentence_transformers", "kombu", "amqp")
    quiet = (*libraries, "filelock", "celery.app.trace", "celery.worker.strategy", "celery.worker.consumer.mingle")
    for name, own_level in (dict.fromkeys(quiet, "WARNING") | parse_levels(levels)).items():
        logging.getLogger(name).setLevel(own_level)


def parse_levels(text: str) -> dict[str, str]:
    """Levels by logger, from ``NAME=LEVEL,NAME=LEVEL``."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): level.strip().upper() for name, _, level in pairs}
