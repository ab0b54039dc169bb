"""Logging setup: one format for all processes, with time, level, logger and message.

Log lines identify jobs and documents by id. Prompts, results and document texts are never logged. What a client sent, such as a path,
cannot add lines to the log or control a terminal.
"""

import logging
import re
import sys
from typing import Any

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


# Control characters of ASCII and Latin-1, and those of Unicode that separate lines or reorder text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class LineFormatter(logging.Formatter):
    """Formats a record as one line, with control characters escaped, and indents its traceback.

    A record with a ``request_id`` ends with the id of the HTTP request.
    """

    def __init__(self) -> None:
        super().__init__(FORMAT, datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        request = getattr(record, "request_id", "")
        return escape_controls(super().formatMessage(record)) + (f" [{request}]" if request else "")

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"    {escape_controls(line)}" for line in super().formatException(ei).split("\n"))


def escape_controls(text: str) -> str:
    """The text with control characters as Python writes them in string literals."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def configure(level: str = "INFO") -> None:
    """Send all log records of this process to standard error. A second call replaces the first configuration."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These libraries log every request, file or message at INFO, which hides the lines that operators need.
    libraries = ("httpx", "httpcore", "httpx2", "httpcore2", "urllib3", "chromadb", "sentence_transformers", "kombu", "amqp")
    for name in (*libraries, "filelock", "celery.app.trace", "celery.worker.strategy", "celery.worker.consumer.mingle"):
        logging.getLogger(name).setLevel("WARNING")
