"""The public names of the client. A change here is a breaking change for its users."""

import inspect
from pathlib import Path

import enginehouse_client
from enginehouse_client import AsyncChatSession, AsyncClient, ChatSession, Client

CALLS = [
    "ask",
    "attention",
    "cancel",
    "cancel_requests",
    "change_collection",
    "change_jobs",
    "change_key",
    "change_webhook",
    "chat",
    "chats",
    "close",
    "collection",
    "collections",
    "create_collection",
    "create_key",
    "create_webhook",
    "delete",
    "delete_collection",
    "delete_document",
    "delete_webhook",
    "deliveries",
    "delivery",
    "document",
    "document_counts",
    "document_file",
    "documents",
    "generate",
    "get",
    "health",
    "ingest",
    "ingest_urls",
    "job_counts",
    "job_log",
    "job_request",
    "jobs",
    "key",
    "keys",
    "models",
    "move_document",
    "open_batch",
    "overview",
    "page_image",
    "page_text",
    "redeliver",
    "reindex",
    "rename_document",
    "request",
    "request_batch",
    "request_batches",
    "request_results",
    "restore_collection",
    "restore_document",
    "retry",
    "revoke_key",
    "rotate_key",
    "rotate_webhook",
    "seal",
    "search",
    "send",
    "send_urls",
    "stats",
    "stream",
    "submit_requests",
    "upload",
    "usage",
    "wait",
    "wait_for_requests",
    "wait_until_fetched",
    "wait_until_indexed",
    "webhook",
    "webhook_secret",
    "webhooks",
]
CHAT = ["delete", "edit", "history", "id", "regenerate", "rename", "restore", "say", "show", "submit", "turns"]


def public(kind: type) -> list[str]:
    return sorted(name for name in dir(kind) if not name.startswith("_"))


def test_the_package_exports_what_it_lists() -> None:
    assert enginehouse_client.__all__ == sorted(enginehouse_client.__all__, key=lambda name: (name[0].islower(), name))
    assert [name for name in vars(enginehouse_client) if name[0].isupper()] != []
    offered = {name for name, value in vars(enginehouse_client).items() if inspect.isclass(value)} | {"webhooks"}
    assert offered == set(enginehouse_client.__all__) | ({"Options"} & offered)


def test_both_clients_have_the_same_methods() -> None:
    assert public(Client) == public(AsyncClient) == CALLS
    assert public(ChatSession) == public(AsyncChatSession) == CHAT


def test_both_clients_share_documented_operations() -> None:
    for name in set(CALLS) - {"chat", "close"}:
        assert getattr(Client, name) is getattr(AsyncClient, name)
        assert getattr(Client, name).__doc__, name


def test_type_hints_are_packaged() -> None:
    assert (Path(enginehouse_client.__file__).parent / "py.typed").exists()
