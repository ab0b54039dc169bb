"""Run operations on a blocking or an asynchronous connection.

``sync_method`` and its three siblings turn an operation into a method of a client that keeps the operation's signature.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import httpx2

from enginehouse_client.effects import Effect, Emit, Open, Operation, Receive, Request, Response, Send, Sleep, Stream
from enginehouse_client.errors import ConnectionFailed

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_SECONDS = 10.0
VERSION_HEADER = "enginehouse-version"


@dataclass(frozen=True)
class Result:
    """The return value of an operation."""

    value: Any


class SyncRunner:
    """Runs operations on a blocking HTTP client; ``calls`` creates the operations."""

    def __init__(self, calls: Any, http: httpx2.Client) -> None:
        self._calls = calls
        self._http = http
        self.server_version = ""
        """The version of the server, from its latest response."""

    def _run(self, operation: Operation[T]) -> T:
        *_, end = self._steps(operation)
        value: T = end.value
        return value

    def _each(self, operation: Stream[T]) -> Iterator[T]:
        yield from (step.value for step in self._steps(operation) if isinstance(step, Emit))

    def _steps(self, operation: Generator[Any, Any, Any]) -> Iterator[Emit[Any] | Result]:
        connection = _Connection(self._http)
        move: Callable[[], Any] = partial(next, operation)
        try:
            while True:
                try:
                    effect = move()
                except StopIteration as end:
                    yield Result(end.value)
                    return
                if isinstance(effect, Emit):
                    yield effect
                    move = partial(next, operation)
                    continue
                try:
                    with _translate_errors():
                        answer = connection.perform(effect)
                    if isinstance(answer, Response):
                        self.server_version = answer.headers.get(VERSION_HEADER, "")
                    move = partial(operation.send, answer)
                except ConnectionFailed as error:
                    move = partial(operation.throw, error)
        finally:
            connection.close()


class AsyncRunner:
    """Runs operations on an asynchronous HTTP client."""

    def __init__(self, calls: Any, http: httpx2.AsyncClient) -> None:
        self._calls = calls
        self._http = http
        self.server_version = ""
        """The version of the server, from its latest response."""

    async def _run(self, operation: Operation[T]) -> T:
        end = [step async for step in self._steps(operation)][-1]
        value: T = end.value
        return value

    async def _each(self, operation: Stream[T]) -> AsyncIterator[T]:
        async with aclosing(self._steps(operation)) as steps:
            async for step in steps:
                if isinstance(step, Emit):
                    yield step.value

    async def _steps(self, operation: Generator[Any, Any, Any]) -> Any:
        connection = _AsyncConnection(self._http)
        move: Callable[[], Any] = partial(next, operation)
        try:
            while True:
                try:
                    effect = move()
                except StopIteration as end:
                    yield Result(end.value)
                    return
                if isinstance(effect, Emit):
                    yield effect
                    move = partial(next, operation)
                    continue
                try:
                    with _translate_errors():
                        answer = await connection.perform(effect)
                    if isinstance(answer, Response):
                        self.server_version = answer.headers.get(VERSION_HEADER, "")
                    move = partial(operation.send, answer)
                except ConnectionFailed as error:
                    move = partial(operation.throw, error)
        finally:
            await connection.close()


class _Connection:
    """Performs the effects of one operation, which may have one response open."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._opened: httpx2.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, effect: Effect) -> Response | bytes | None:
        match effect:
            case Send(request):
                with _built(self._http, request) as built:
                    response = self._http.send(built)
                return _to_response(response, response.content)
            case Open(request):
                self.close()
                with _built(self._http, request) as built:
                    self._opened = self._http.send(built, stream=True)
                self._pieces = self._opened.iter_bytes()
                return _to_response(self._opened, self._opened.read() if self._opened.is_error else b"")
            case Receive():
                return next(self._pieces, b"")
            case Sleep(seconds):
                time.sleep(seconds)
                return None

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


class _AsyncConnection:
    """Performs the effects of one operation asynchronously."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._opened: httpx2.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, effect: Effect) -> Response | bytes | None:
        match effect:
            case Send(request):
                with _built(self._http, request) as built:
                    response = await self._http.send(built)
                return _to_response(response, response.content)
            case Open(request):
                await self.close()
                with _built(self._http, request) as built:
                    self._opened = await self._http.send(built, stream=True)
                self._pieces = self._opened.aiter_bytes()
                return _to_response(self._opened, await self._opened.aread() if self._opened.is_error else b"")
            case Receive():
                return b"" if self._pieces is None else await anext(self._pieces, b"")
            case Sleep(seconds):
                await asyncio.sleep(seconds)
                return None

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None


@contextmanager
def _built(http: httpx2.Client | httpx2.AsyncClient, request: Request) -> Iterator[httpx2.Request]:
    """Build the request; its files are open inside the context. Raises OSError."""
    with ExitStack() as opened:
        files = [("file", (source.name, opened.enter_context(source.open(request.on_sent)))) for source in request.files]
        yield http.build_request(
            request.method,
            request.path,
            params=dict(request.query) or None,
            headers=dict(request.headers),
            json=request.json,
            files=files or None,
            data=dict(request.form) or None,
            timeout=httpx2.Timeout(request.timeout, connect=CONNECT_SECONDS),
        )


def _to_response(response: httpx2.Response, body: bytes) -> Response:
    return Response(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except httpx2.RequestError as error:
        unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
        where = error.request.url.copy_with(query=None) if error._request is not None else "the server"
        raise ConnectionFailed(f"no response from {where}: {error or type(error).__name__}", unsent=unsent) from error


class _Method:
    """An operation as a method. On the class it is the operation itself, so that documentation shows its signature."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def _bind(self, on: Any, drive: str) -> Any:
        if on is None:
            return self._call

        @functools.wraps(self._call)
        def method(*args: Any, **kwargs: Any) -> Any:
            return getattr(on, drive)(self._call(on._calls, *args, **kwargs))

        return method


class sync_method(_Method, Generic[P, T]):
    """A method that runs an operation and returns its value."""

    def __init__(self, call: Callable[Concatenate[Any, P], Operation[T]]) -> None:
        super().__init__(call)

    def __get__(self, on: Any, owner: type) -> Callable[P, T]:
        method: Callable[P, T] = self._bind(on, "_run")
        return method


class sync_iterator(_Method, Generic[P, T]):
    """A method that iterates over the values that an operation emits."""

    def __init__(self, call: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        super().__init__(call)

    def __get__(self, on: Any, owner: type) -> Callable[P, Iterator[T]]:
        method: Callable[P, Iterator[T]] = self._bind(on, "_each")
        return method


class async_method(_Method, Generic[P, T]):
    """A coroutine method that runs an operation and returns its value."""

    def __init__(self, call: Callable[Concatenate[Any, P], Operation[T]]) -> None:
        super().__init__(call)

    def __get__(self, on: Any, owner: type) -> Callable[P, Coroutine[Any, Any, T]]:
        method: Callable[P, Coroutine[Any, Any, T]] = self._bind(on, "_run")
        return method


class async_iterator(_Method, Generic[P, T]):
    """A method that iterates asynchronously over the values that an operation emits."""

    def __init__(self, call: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        super().__init__(call)

    def __get__(self, on: Any, owner: type) -> Callable[P, AsyncIterator[T]]:
        method: Callable[P, AsyncIterator[T]] = self._bind(on, "_each")
        return method
