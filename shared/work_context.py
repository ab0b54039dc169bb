"""What a thread works on: the ids that its log lines carry, and that it passes on to the jobs that it submits.

A trace is named by a ``traceparent`` of W3C Trace Context, with which the next part continues it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# A job's log has the first lines of each attempt, and lines are cut.
MAX_LINES = 100
MAX_CHARACTERS = 500


@dataclass(frozen=True)
class LogLine:
    """A line that was logged while an attempt ran. ``at`` is in Unix milliseconds."""

    at: int
    level: str
    message: str


@dataclass(frozen=True, kw_only=True)
class WorkContext:
    """The current request, job and trace; each may be empty. ``lines`` gathers what is logged meanwhile, if it is a list."""

    request_id: str = ""
    job: str = ""
    traceparent: str = ""
    lines: list[LogLine] | None = field(default=None, repr=False)

    @property
    def trace_id(self) -> str:
        return trace_id_of(self.traceparent)


_EMPTY = WorkContext()
_current: ContextVar[WorkContext] = ContextVar("work", default=_EMPTY)


def current_work() -> WorkContext:
    """What this thread works on."""
    return _current.get()


def set_work(context: WorkContext) -> None:
    """Set what this thread works on, until the next call. For threads that serve one request after the other."""
    _current.set(context)


@contextmanager
def working_on(context: WorkContext) -> Iterator[None]:
    """Set what this thread works on inside the block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def set_traceparent(traceparent: str) -> None:
    """Continue the work of this thread under another span."""
    _current.set(replace(_current.get(), traceparent=traceparent))


def valid_traceparent(text: str) -> str:
    """The text if it is a traceparent, else an empty one: a client may send anything."""
    return text if _TRACEPARENT.fullmatch(text) else ""


def trace_id_of(traceparent: str) -> str:
    """The id of the trace, empty without one."""
    return traceparent.split("-")[1] if traceparent else ""
