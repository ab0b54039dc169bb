"""Connection to an OpenAI-compatible server: requests in one event loop, each of which can be cancelled, which closes its connection.

Errors of the connection and of the server become those that decide what happens to a job.
"""

import asyncio
import json
import os
import random
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from shared.errors import EngineFault, InvalidValue, ModelUnavailable, PromptTooLong
from shared.models.catalogue import ModelEntry

T = TypeVar("T")

CONNECT_SECONDS = 10.0
# A server may let a request wait in a queue of its own before it sends anything.
FIRST_SECONDS = 600.0
# How long a server may refuse a request because of its rate limit.
RATE_LIMIT_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 30.0
# What servers call a prompt that does not fit.
CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error", "prompt_too_long")
MAX_DETAIL = 300

# A host that vanishes without closing its connections is noticed within a minute.
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class ServerAway(EngineFault):
    """No request reaches the server, so the job is not at fault and runs again once it is back."""

    outage = True


class _Busy(Exception):
    """The server refuses a request for now; it may be sent again after ``seconds``, if the server says when."""

    def __init__(self, detail: str, seconds: float | None) -> None:
        super().__init__(detail)
        self.seconds = seconds


class ServerConnection:
    """The server of one model. Coroutines run in its event loop; the other methods may be called from any thread."""

    def __init__(self, entry: ModelEntry, *, hang_seconds: float) -> None:
        self._entry = entry
        self._hang_seconds = hang_seconds
        self._paused_until = 0.0
        self.on_away = threading.Event()
        """Set when a request could not reach the server, or was refused for now."""
        self._loop = asyncio.new_event_loop()
        # Reading the certificates takes a tenth of a second of CPU.
        verify = entry.url.startswith("https:")
        transport = httpx2.AsyncHTTPTransport(verify=verify, limits=httpx2.Limits(max_connections=None), socket_options=KEEPALIVE)
        # Silence is limited where an answer is read.
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        self._client = httpx2.AsyncClient(transport=transport, timeout=timeout)
        self._thread = threading.Thread(target=self._loop.run_forever, name="model-server", daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        return self._entry.url.rstrip("/")

    @property
    def root_url(self) -> str:
        """Where calls are that OpenAI's API does not have."""
        return self.base_url.removesuffix("/v1")

    @property
    def remote_model(self) -> str:
        """The server's name for the model."""
        return self._entry.remote_model or self._entry.name

    @property
    def pause_seconds(self) -> float:
        """How long the pause lasts that the server has asked for; 0 if there is none."""
        return max(0.0, self._paused_until - time.monotonic())

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine to its end. Raises what it raises, CancelledError if it was cancelled, and TimeoutError."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    def cancel(self, task: "asyncio.Task[Any]") -> None:
        """Cancel a coroutine, and so close its connection."""
        with suppress(RuntimeError):  # the loop has ended, and the connection with it
            self._loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """Close all connections. Requests that are still running end as lost."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.create_task, self._end())
        self._thread.join(5.0)

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()
        self._loop.stop()

    async def get(self, url: str) -> Any:
        """The JSON of a call without a body. Raises ServerAway, ModelUnavailable, InvalidValue and EngineFault."""
        async with self._errors():
            return await self._read(await self._client.get(url, headers=self._headers()))

    async def post(self, url: str, body: Mapping[str, Any]) -> Any:
        """The JSON of a call, sent again as long as the server is busy. Raises the same."""
        return await self._while_busy(lambda: self._post(url, body))

    async def _post(self, url: str, body: Mapping[str, Any]) -> Any:
        async with self._errors():
            return await self._read(await self._client.post(url, json=body, headers=self._headers()))

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed answer; the request is sent again as long as the server is busy.

        Raises the same, and EngineFault if the stream ends before ``[DONE]``.
        """
        response = await self._while_busy(lambda: self._open(path, body))
        async with self._errors():
            try:
                async for chunk in self._chunks(response):
                    yield chunk
            finally:
                await response.aclose()

    async def _open(self, path: str, body: Mapping[str, Any]) -> httpx2.Response:
        async with self._errors():
            request = self._client.build_request("POST", f"{self.base_url}{path}", json=body, headers=self._headers())
            async with asyncio.timeout(FIRST_SECONDS):
                response = await self._client.send(request, stream=True)
                if response.status_code != 200:
                    await response.aread()
                    self._raise_for(response)
            return response

    async def _chunks(self, response: httpx2.Response) -> AsyncGenerator[dict[str, Any], None]:
        lines, limit = response.aiter_lines(), FIRST_SECONDS
        while True:
            try:
                async with asyncio.timeout(limit):
                    line = await anext(lines)
            except StopAsyncIteration:
                raise self.fault("the stream ended before the answer") from None
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            limit = self._hang_seconds
            try:
                chunk = json.loads(data)
            except ValueError:
                raise self.fault("a chunk of the stream is not JSON") from None
            if not isinstance(chunk, dict):
                raise self.fault("a chunk of the stream is not an object")
            if chunk.get("error"):
                self._raise_refusal(_status_of(chunk["error"]), chunk)
            yield chunk

    async def _while_busy(self, send: Any) -> Any:
        """What ``send`` returns, once the server accepts the request."""
        deadline, refusals = time.monotonic() + RATE_LIMIT_SECONDS, 0
        while True:
            await asyncio.sleep(self.pause_seconds)
            try:
                return await send()
            except _Busy as busy:
                pause = min(2.0**refusals, LONGEST_PAUSE_SECONDS) if busy.seconds is None else busy.seconds
                refusals += 1
                resume = time.monotonic() + pause
                if resume > deadline:
                    raise self._away(f"it refuses requests: {busy}") from None
                # For all requests, as the limit is that of the key. The jitter spreads those that wait.
                self._paused_until = max(self._paused_until, resume + random.uniform(0, 0.1 * pause))
                self.on_away.set()

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """Turn errors of the connection into those of jobs."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            self.on_away.set()
            raise self._away(f"{type(error).__name__}: {error}") from None
        except TimeoutError:
            self.on_away.set()
            raise self.fault("it sent nothing for too long") from None
        except httpx2.HTTPError as error:
            self.on_away.set()
            raise self.fault(f"the connection broke: {type(error).__name__}") from None

    async def _read(self, response: httpx2.Response) -> Any:
        if response.status_code != 200:
            self._raise_for(response)
        try:
            return response.json()
        except ValueError:
            raise self.fault("its answer is not JSON") from None

    def _raise_for(self, response: httpx2.Response) -> None:
        try:
            body = response.json()
        except ValueError:
            body = {"message": f"status {response.status_code}"}
        retry_after = response.headers.get("retry-after")
        status = response.status_code
        error = body.get("error") if isinstance(body, dict) else None
        if status == 429 and isinstance(error, dict) and error.get("code") == "insufficient_quota":
            raise ModelUnavailable(f"The server of model {self._entry.name} has no quota left: {self._detail(body)}.")
        if status in (429, 529) or (status == 503 and retry_after is not None):
            raise _Busy(self._detail(body), _seconds(retry_after))
        self._raise_refusal(status, body)

    def _raise_refusal(self, status: int, body: Any) -> None:
        name, detail, error = self._entry.name, self._detail(body), body.get("error") if isinstance(body, dict) else None
        code, param = (error.get("code"), error.get("param")) if isinstance(error, dict) else (None, None)
        kind = error.get("type") if isinstance(error, dict) else None
        if code in CONTEXT_CODES or kind in CONTEXT_CODES or "maximum context length" in detail:
            raise PromptTooLong(f"The prompt does not fit the context of model {name}: {detail}", param="prompt")
        if status in (401, 403):
            self.on_away.set()
            raise ModelUnavailable(f"The server of model {name} refuses its API key: {detail}. See api_key_env and api_key_file.")
        if status in (502, 503, 504):
            self.on_away.set()
            raise self._away(f"status {status}: {detail}")
        if 400 <= status < 500:
            raise InvalidValue(
                f"The server of model {name} refused the request: {detail}", param=param if isinstance(param, str) else None
            )
        raise self.fault(f"status {status}: {detail}")

    def fault(self, problem: str) -> EngineFault:
        """The error of a job that may be tried again."""
        return EngineFault(f"The server of model {self._entry.name} could not run this job: {problem}.")

    def _away(self, problem: str) -> ServerAway:
        return ServerAway(f"The server of model {self._entry.name} cannot be reached ({problem}).")

    def _detail(self, body: Any) -> str:
        """What an error says, without the key, as some servers repeat a key that they refuse."""
        detail, key = _detail(body), read_api_key(self._entry)
        return detail.replace(key, "(key)") if key else detail

    def _headers(self) -> dict[str, str]:
        key = read_api_key(self._entry)
        return {"Authorization": f"Bearer {key}"} if key else {}


def read_api_key(entry: ModelEntry) -> str:
    """The key for the server; empty if the entry names none. Raises ModelUnavailable if it is missing where the entry says."""
    if entry.api_key_env:
        key = os.environ.get(entry.api_key_env, "").strip()
        if not key:
            raise ModelUnavailable(f"Model {entry.name}: the environment variable {entry.api_key_env} (api_key_env) is not set.")
        return key
    if entry.api_key_file:
        try:
            key = Path(entry.api_key_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelUnavailable(f"Model {entry.name}: api_key_file cannot be read: {error}") from None
        if not key:
            raise ModelUnavailable(f"Model {entry.name}: {entry.api_key_file} (api_key_file) is empty.")
        return key
    return ""


def _status_of(error: Any) -> int:
    """The status of an error inside a stream: its code where that is a number, else a fault of the server."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return 400 if isinstance(error, dict) and error.get("type") in ("invalid_request_error", "BadRequestError") else 500


def _detail(body: Any) -> str:
    """What an error of a server says, in any of the forms in use."""
    if not isinstance(body, dict):
        return str(body)[:MAX_DETAIL]
    error = body.get("error", body)
    text = error if isinstance(error, str) else None
    if isinstance(error, dict):
        text = error.get("message") or error.get("detail") or error.get("code")
    return str(text or "no reason given").strip().rstrip(".")[:MAX_DETAIL]


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of a ``Retry-After``, which may also be a date."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
