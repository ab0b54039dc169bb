"""One log format for every process: time, level, process part, message; the job's id where there is one.

Prompts, results and document texts are never logged; ids are.
"""

import logging
import sys

FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


def configure(level: str = "INFO") -> None:
    """Send all logging of this process to standard error. Calling it again replaces what was set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These libraries tell each request, file or ticket at INFO, which buries what an operator looks for.
    noisy_ones = ("httpx", "httpcore", "urllib3", "chromadb", "sentence_transformers", "kombu", "amqp", "filelock")
    for noisy in (*noisy_ones, "celery.app.trace", "celery.worker.strategy", "celery.worker.consumer.mingle"):
        logging.getLogger(noisy).setLevel("WARNING")
