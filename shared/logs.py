"""Logging setup: one format for all processes, with time, level, logger and message.

Log lines identify jobs and documents by id. Prompts, results and document texts are never logged.
"""

import logging
import sys

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


def configure(level: str = "INFO") -> None:
    """Send all log records of this process to standard error. A second call replaces the first configuration."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These libraries log every request, file or message at INFO, which hides the lines that operators need.
    libraries = ("httpx", "httpcore", "urllib3", "chromadb", "sentence_transformers", "kombu", "amqp", "filelock")
    for name in (*libraries, "celery.app.trace", "celery.worker.strategy", "celery.worker.consumer.mingle"):
        logging.getLogger(name).setLevel("WARNING")
