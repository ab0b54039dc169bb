"""An adapter that gives the asynchronous client the interface of the blocking one."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from enginehouse_client import AsyncChatSession, AsyncClient


class Awaited:
    """An AsyncClient or AsyncChatSession whose methods run to completion in an event loop."""

    def __init__(self, runner: asyncio.Runner, client: AsyncClient | AsyncChatSession) -> None:
        self._runner = runner
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._blocking(found) if callable(found) else found

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = method(*args, **kwargs)
            if inspect.iscoroutine(given):
                return self._runner.run(given)
            if isinstance(given, AsyncChatSession):
                return Awaited(self._runner, given)
            return self._pulled(given)

        return call

    def _pulled(self, given: AsyncIterator[Any]) -> Iterator[Any]:
        async def pull() -> Any:
            return await anext(given, None)

        while (value := self._runner.run(pull())) is not None:
            yield value
