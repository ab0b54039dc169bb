"""Effects: the requests that operations yield and the responses that they receive.

An operation is a generator that yields effects and is sent their results. It is written once, and ``runtime`` runs it on a blocking
or an asynchronous connection.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from enginehouse_client.files import Source

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# A parameter with several values is sent once for each.
Query: TypeAlias = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. ``timeout`` is in seconds until the next byte. ``repeatable``: the request is safe to send twice.
    ``form`` has the fields beside the files; ``on_sent`` receives the number of bytes sent of a single file."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    files: Sequence[Source] = ()
    form: Mapping[str, str] = field(default_factory=dict)
    on_sent: Callable[[int], None] | None = None
    timeout: float | None = None
    repeatable: bool = True


@dataclass(frozen=True)
class Response:
    """Status, headers (names in lower case) and body. The body of an opened stream is empty unless the status is an error."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The parsed body; an empty object if it is not JSON, such as the error page of a proxy."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


@dataclass(frozen=True)
class Send:
    """Send a request and read the whole response. Result: a Response. Raises ConnectionFailed."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send a request and keep the response open, to receive its body in pieces. Results and errors are those of Send."""

    request: Request


@dataclass(frozen=True)
class Receive:
    """Read the next piece of the open response. Result: bytes, empty at the end. Raises ConnectionFailed."""


@dataclass(frozen=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Emit(Generic[T_co]):
    """Yield a value to the caller's loop."""

    value: T_co


Effect: TypeAlias = Send | Open | Receive | Sleep
Operation: TypeAlias = Generator[Effect, Any, T]
Stream: TypeAlias = Generator[Effect | Emit[T], Any, None]
