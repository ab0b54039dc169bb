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
    # These libraries tell each request or file at INFO, which buries what an operator looks for.
    for noisy in ("httpx", "httpcore", "urllib3", "chromadb", "sentence_transformers", "kombu", "amqp", "filelock"):
        logging.getLogger(noisy).setLevel("WARNING")
