"""``Client`` and ``AsyncClient``: the same calls, blocking and asynchronous. What they do is written in ``calls``, once."""

from types import TracebackType
from typing import Self, Unpack

import httpx2

from enginehouse_client import chat
from enginehouse_client.calls import Calls
from enginehouse_client.jobs import Options
from enginehouse_client.retry import Patience
from enginehouse_client.runtime import Awaiting, Blocking, awaiting, awaiting_each, blocking, blocking_each

HERE = "http://127.0.0.1:5000"


class Client(Blocking):
    """Calls one server. Safe to use from many threads; a ``with`` block, or ``close``, ends its connections.

    ``http`` is for those who need a proxy or certificates of their own: an ``httpx2.Client``, which is not closed here; its
    ``base_url`` and headers are used as they are.
    """

    def __init__(
        self,
        url: str = HERE,
        *,
        api_key: str | None = None,
        patience: Patience | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        self._owned = http is None
        super().__init__(Calls(patience or Patience()), http or httpx2.Client(base_url=url, headers=_headers(api_key)))

    generate = blocking(Calls.generate)
    ask = blocking(Calls.ask)
    get = blocking(Calls.get)
    wait = blocking(Calls.wait)
    stream = blocking_each(Calls.stream)
    cancel = blocking(Calls.cancel)
    retry = blocking(Calls.retry)
    delete = blocking(Calls.delete)
    jobs = blocking_each(Calls.jobs)
    upload = blocking(Calls.upload)
    open_batch = blocking(Calls.open_batch)
    send = blocking(Calls.send)
    seal = blocking(Calls.seal)
    ingest = blocking(Calls.ingest)
    until_read = blocking(Calls.until_read)
    search = blocking(Calls.search)
    collections = blocking(Calls.collections)
    collection = blocking(Calls.collection)
    delete_collection = blocking(Calls.delete_collection)
    reindex = blocking(Calls.reindex)
    documents = blocking_each(Calls.documents)
    document = blocking(Calls.document)
    delete_document = blocking(Calls.delete_document)
    webhooks = blocking(Calls.webhooks)
    webhook = blocking(Calls.webhook)
    create_webhook = blocking(Calls.create_webhook)
    change_webhook = blocking(Calls.change_webhook)
    delete_webhook = blocking(Calls.delete_webhook)
    rotate_webhook = blocking(Calls.rotate_webhook)
    webhook_secret = blocking(Calls.webhook_secret)
    deliveries = blocking_each(Calls.deliveries)
    delivery = blocking(Calls.delivery)
    redeliver = blocking(Calls.redeliver)
    models = blocking(Calls.models)
    health = blocking(Calls.health)
    request = blocking(Calls.request)

    def chat(self, chat_id: str | None = None, **options: Unpack[Options]) -> "ChatSession":
        """A new chat, or the one of this id; the server hears of it with its first message."""
        return ChatSession(chat.Chat(self._calls, chat_id, options), self._http)

    def close(self) -> None:
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class ChatSession(Blocking):
    """One chat, as ``Client.chat`` gives it."""

    say = blocking(chat.Chat.say)
    submit = blocking(chat.Chat.submit)
    history = blocking(chat.Chat.history)
    delete = blocking(chat.Chat.delete)

    @property
    def id(self) -> str:
        return str(self._calls.id)


class AsyncClient(Awaiting):
    """The same for asyncio: methods are awaited, and ``stream`` and what lists by pages are iterated with ``async for``."""

    def __init__(
        self,
        url: str = HERE,
        *,
        api_key: str | None = None,
        patience: Patience | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._owned = http is None
        super().__init__(Calls(patience or Patience()), http or httpx2.AsyncClient(base_url=url, headers=_headers(api_key)))

    generate = awaiting(Calls.generate)
    ask = awaiting(Calls.ask)
    get = awaiting(Calls.get)
    wait = awaiting(Calls.wait)
    stream = awaiting_each(Calls.stream)
    cancel = awaiting(Calls.cancel)
    retry = awaiting(Calls.retry)
    delete = awaiting(Calls.delete)
    jobs = awaiting_each(Calls.jobs)
    upload = awaiting(Calls.upload)
    open_batch = awaiting(Calls.open_batch)
    send = awaiting(Calls.send)
    seal = awaiting(Calls.seal)
    ingest = awaiting(Calls.ingest)
    until_read = awaiting(Calls.until_read)
    search = awaiting(Calls.search)
    collections = awaiting(Calls.collections)
    collection = awaiting(Calls.collection)
    delete_collection = awaiting(Calls.delete_collection)
    reindex = awaiting(Calls.reindex)
    documents = awaiting_each(Calls.documents)
    document = awaiting(Calls.document)
    delete_document = awaiting(Calls.delete_document)
    webhooks = awaiting(Calls.webhooks)
    webhook = awaiting(Calls.webhook)
    create_webhook = awaiting(Calls.create_webhook)
    change_webhook = awaiting(Calls.change_webhook)
    delete_webhook = awaiting(Calls.delete_webhook)
    rotate_webhook = awaiting(Calls.rotate_webhook)
    webhook_secret = awaiting(Calls.webhook_secret)
    deliveries = awaiting_each(Calls.deliveries)
    delivery = awaiting(Calls.delivery)
    redeliver = awaiting(Calls.redeliver)
    models = awaiting(Calls.models)
    health = awaiting(Calls.health)
    request = awaiting(Calls.request)

    def chat(self, chat_id: str | None = None, **options: Unpack[Options]) -> "AsyncChatSession":
        """A new chat, or the one of this id; the server hears of it with its first message."""
        return AsyncChatSession(chat.Chat(self._calls, chat_id, options), self._http)

    async def close(self) -> None:
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class AsyncChatSession(Awaiting):
    """One chat, as ``AsyncClient.chat`` gives it."""

    say = awaiting(chat.Chat.say)
    submit = awaiting(chat.Chat.submit)
    history = awaiting(chat.Chat.history)
    delete = awaiting(chat.Chat.delete)

    @property
    def id(self) -> str:
        return str(self._calls.id)


def _headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
