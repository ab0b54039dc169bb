"""What an operation may ask of the world, and what it is told.

Operations are generators: they yield these, and are sent what came of it, so each is written once and runs on a blocking
connection as on an asynchronous one. Nothing here does anything.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from enginehouse_client.files import Source

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. ``timeout``: seconds until the next byte. ``repeatable``: sending it twice does no harm. ``on_sent`` is
    told how many bytes of its one file have gone out."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    files: Sequence[Source] = ()
    on_sent: Callable[[int], None] | None = None
    timeout: float | None = None
    repeatable: bool = True


@dataclass(frozen=True)
class Response:
    """Status, headers (names in lower case) and body; of an opened stream the body is empty unless it was refused."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body; an empty object when it is no JSON, as a proxy's page of errors is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


@dataclass(frozen=True)
class Send:
    """Send it and read the whole answer. Told: an Answer; thrown: ConnectionFailed."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send it and leave the answer open, to be received in pieces. Told and thrown as with Send."""

    request: Request


@dataclass(frozen=True)
class Receive:
    """The next piece of what was opened. Told: bytes, empty at the end; thrown: ConnectionFailed."""


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Emit(Generic[T_co]):
    """Hand a value to the caller, who iterates."""

    value: T_co


Effect: TypeAlias = Send | Open | Receive | Sleep
Operation: TypeAlias = Generator[Effect, Any, T]
Stream: TypeAlias = Generator[Effect | Emit[T], Any, None]
