"""``Client`` and ``AsyncClient``: the operations of ``calls``, blocking and asynchronous."""

from types import TracebackType
from typing import Self, Unpack

import httpx2

from enginehouse_client import chat
from enginehouse_client.calls import Calls
from enginehouse_client.jobs import ChatOptions
from enginehouse_client.retry import RetryPolicy
from enginehouse_client.runtime import AsyncRunner, SyncRunner, async_iterator, async_method, sync_iterator, sync_method

DEFAULT_URL = "http://127.0.0.1:5000"


class Client(SyncRunner):
    """A client of one server. Thread-safe; a ``with`` block or ``close`` closes its connections.

    Pass ``http``, an ``httpx2.Client``, to use your own proxy or certificates. Its ``base_url`` and headers are used unchanged, and
    it stays open when this client is closed.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        retry_policy: RetryPolicy | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        self._owned = http is None
        super().__init__(Calls(retry_policy or RetryPolicy()), http or httpx2.Client(base_url=url, headers=_headers(api_key)))

    generate = sync_method(Calls.generate)
    ask = sync_method(Calls.ask)
    get = sync_method(Calls.get)
    wait = sync_method(Calls.wait)
    stream = sync_iterator(Calls.stream)
    cancel = sync_method(Calls.cancel)
    retry = sync_method(Calls.retry)
    delete = sync_method(Calls.delete)
    jobs = sync_iterator(Calls.jobs)
    job_counts = sync_method(Calls.job_counts)
    job_log = sync_method(Calls.job_log)
    job_request = sync_method(Calls.job_request)
    change_jobs = sync_method(Calls.change_jobs)
    upload = sync_method(Calls.upload)
    open_batch = sync_method(Calls.open_batch)
    send = sync_method(Calls.send)
    seal = sync_method(Calls.seal)
    ingest = sync_method(Calls.ingest)
    wait_until_indexed = sync_method(Calls.wait_until_indexed)
    send_urls = sync_method(Calls.send_urls)
    ingest_urls = sync_method(Calls.ingest_urls)
    wait_until_fetched = sync_method(Calls.wait_until_fetched)
    search = sync_method(Calls.search)
    collections = sync_method(Calls.collections)
    collection = sync_method(Calls.collection)
    create_collection = sync_method(Calls.create_collection)
    change_collection = sync_method(Calls.change_collection)
    delete_collection = sync_method(Calls.delete_collection)
    reindex = sync_method(Calls.reindex)
    documents = sync_iterator(Calls.documents)
    document_counts = sync_method(Calls.document_counts)
    document = sync_method(Calls.document)
    rename_document = sync_method(Calls.rename_document)
    move_document = sync_method(Calls.move_document)
    delete_document = sync_method(Calls.delete_document)
    restore_collection = sync_method(Calls.restore_collection)
    restore_document = sync_method(Calls.restore_document)
    document_file = sync_method(Calls.document_file)
    page_image = sync_method(Calls.page_image)
    page_text = sync_method(Calls.page_text)
    submit_requests = sync_method(Calls.submit_requests)
    request_batch = sync_method(Calls.request_batch)
    request_batches = sync_iterator(Calls.request_batches)
    wait_for_requests = sync_method(Calls.wait_for_requests)
    cancel_requests = sync_method(Calls.cancel_requests)
    request_results = sync_iterator(Calls.request_results)
    webhooks = sync_method(Calls.webhooks)
    webhook = sync_method(Calls.webhook)
    create_webhook = sync_method(Calls.create_webhook)
    change_webhook = sync_method(Calls.change_webhook)
    delete_webhook = sync_method(Calls.delete_webhook)
    rotate_webhook = sync_method(Calls.rotate_webhook)
    webhook_secret = sync_method(Calls.webhook_secret)
    deliveries = sync_iterator(Calls.deliveries)
    delivery = sync_method(Calls.delivery)
    redeliver = sync_method(Calls.redeliver)
    keys = sync_method(Calls.keys)
    key = sync_method(Calls.key)
    create_key = sync_method(Calls.create_key)
    change_key = sync_method(Calls.change_key)
    rotate_key = sync_method(Calls.rotate_key)
    revoke_key = sync_method(Calls.revoke_key)
    models = sync_method(Calls.models)
    chats = sync_iterator(Calls.chats)
    health = sync_method(Calls.health)
    attention = sync_method(Calls.attention)
    overview = sync_method(Calls.overview)
    stats = sync_method(Calls.stats)
    usage = sync_method(Calls.usage)
    request = sync_method(Calls.request)

    def chat(self, chat_id: str | None = None, **options: Unpack[ChatOptions]) -> "ChatSession":
        """Return a new chat, or the chat with this id. The server creates a chat with its first message."""
        return ChatSession(chat.Chat(self._calls, chat_id, options), self._http)

    def close(self) -> None:
        if self._owned:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class ChatSession(SyncRunner):
    """A chat, returned by ``Client.chat``."""

    say = sync_method(chat.Chat.say)
    edit = sync_method(chat.Chat.edit)
    regenerate = sync_method(chat.Chat.regenerate)
    turns = sync_method(chat.Chat.turns)
    show = sync_method(chat.Chat.show)
    rename = sync_method(chat.Chat.rename)
    restore = sync_method(chat.Chat.restore)
    submit = sync_method(chat.Chat.submit)
    history = sync_method(chat.Chat.history)
    delete = sync_method(chat.Chat.delete)

    @property
    def id(self) -> str:
        return str(self._calls.id)


class AsyncClient(AsyncRunner):
    """The client for asyncio: await its methods, and iterate over ``stream`` and paginated lists with ``async for``."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        retry_policy: RetryPolicy | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._owned = http is None
        super().__init__(
            Calls(retry_policy or RetryPolicy()), http or httpx2.AsyncClient(base_url=url, headers=_headers(api_key))
        )

    generate = async_method(Calls.generate)
    ask = async_method(Calls.ask)
    get = async_method(Calls.get)
    wait = async_method(Calls.wait)
    stream = async_iterator(Calls.stream)
    cancel = async_method(Calls.cancel)
    retry = async_method(Calls.retry)
    delete = async_method(Calls.delete)
    jobs = async_iterator(Calls.jobs)
    job_counts = async_method(Calls.job_counts)
    job_log = async_method(Calls.job_log)
    job_request = async_method(Calls.job_request)
    change_jobs = async_method(Calls.change_jobs)
    upload = async_method(Calls.upload)
    open_batch = async_method(Calls.open_batch)
    send = async_method(Calls.send)
    seal = async_method(Calls.seal)
    ingest = async_method(Calls.ingest)
    wait_until_indexed = async_method(Calls.wait_until_indexed)
    send_urls = async_method(Calls.send_urls)
    ingest_urls = async_method(Calls.ingest_urls)
    wait_until_fetched = async_method(Calls.wait_until_fetched)
    search = async_method(Calls.search)
    collections = async_method(Calls.collections)
    collection = async_method(Calls.collection)
    create_collection = async_method(Calls.create_collection)
    change_collection = async_method(Calls.change_collection)
    delete_collection = async_method(Calls.delete_collection)
    reindex = async_method(Calls.reindex)
    documents = async_iterator(Calls.documents)
    document_counts = async_method(Calls.document_counts)
    document = async_method(Calls.document)
    rename_document = async_method(Calls.rename_document)
    move_document = async_method(Calls.move_document)
    delete_document = async_method(Calls.delete_document)
    restore_collection = async_method(Calls.restore_collection)
    restore_document = async_method(Calls.restore_document)
    document_file = async_method(Calls.document_file)
    page_image = async_method(Calls.page_image)
    page_text = async_method(Calls.page_text)
    submit_requests = async_method(Calls.submit_requests)
    request_batch = async_method(Calls.request_batch)
    request_batches = async_iterator(Calls.request_batches)
    wait_for_requests = async_method(Calls.wait_for_requests)
    cancel_requests = async_method(Calls.cancel_requests)
    request_results = async_iterator(Calls.request_results)
    webhooks = async_method(Calls.webhooks)
    webhook = async_method(Calls.webhook)
    create_webhook = async_method(Calls.create_webhook)
    change_webhook = async_method(Calls.change_webhook)
    delete_webhook = async_method(Calls.delete_webhook)
    rotate_webhook = async_method(Calls.rotate_webhook)
    webhook_secret = async_method(Calls.webhook_secret)
    deliveries = async_iterator(Calls.deliveries)
    delivery = async_method(Calls.delivery)
    redeliver = async_method(Calls.redeliver)
    keys = async_method(Calls.keys)
    key = async_method(Calls.key)
    create_key = async_method(Calls.create_key)
    change_key = async_method(Calls.change_key)
    rotate_key = async_method(Calls.rotate_key)
    revoke_key = async_method(Calls.revoke_key)
    models = async_method(Calls.models)
    chats = async_iterator(Calls.chats)
    health = async_method(Calls.health)
    attention = async_method(Calls.attention)
    overview = async_method(Calls.overview)
    stats = async_method(Calls.stats)
    usage = async_method(Calls.usage)
    request = async_method(Calls.request)

    def chat(self, chat_id: str | None = None, **options: Unpack[ChatOptions]) -> "AsyncChatSession":
        """Return a new chat, or the chat with this id. The server creates a chat with its first message."""
        return AsyncChatSession(chat.Chat(self._calls, chat_id, options), self._http)

    async def close(self) -> None:
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()


class AsyncChatSession(AsyncRunner):
    """A chat, returned by ``AsyncClient.chat``."""

    say = async_method(chat.Chat.say)
    edit = async_method(chat.Chat.edit)
    regenerate = async_method(chat.Chat.regenerate)
    turns = async_method(chat.Chat.turns)
    show = async_method(chat.Chat.show)
    rename = async_method(chat.Chat.rename)
    restore = async_method(chat.Chat.restore)
    submit = async_method(chat.Chat.submit)
    history = async_method(chat.Chat.history)
    delete = async_method(chat.Chat.delete)

    @property
    def id(self) -> str:
        return str(self._calls.id)


def _headers(api_key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}
