"""Audit of calls: the table of recorded calls, and the hook that records each with its outcome."""

from typing import Any

from flask import Flask, Response, g, request

from api.caller import Caller
from shared.audit_log import DONE, Actor, AuditLog

ACTIONS: dict[str, str] = {
    "keys.create_key": "key.create",
    "keys.change_key": "key.change",
    "keys.rotate_key": "key.rotate",
    "keys.revoke_key": "key.revoke",
    "owners.change_owner": "owner.set",
    "collections.delete_collection": "collection.delete",
    "collections.restore_collection": "collection.restore",
    "documents.delete_document": "document.delete",
    "documents.delete_chunk": "chunk.delete",
    "tutorial_compat.delete_document": "document.delete",
    "tutorial_compat.delete_chunk": "chunk.delete",
    "tutorial_compat.remove": "chunk.delete",
    "tutorial_compat.clear_db": "collection.delete",
    "openai_vector_stores.delete_vector_store": "collection.delete",
    "openai_vector_store_files.remove_vector_store_file": "document.delete",
    "openai_files.delete_file": "file.delete",
    "documents.restore_document": "document.restore",
    "chat.delete_chat_session": "session.delete",
    "tutorial_chat.delete_chat": "session.delete",
    "chat.restore_chat_session": "session.restore",
    "openai_conversations.delete": "conversation.delete",
    "openai_conversations.delete_item": "conversation_item.delete",
    "openai_responses.delete": "response.delete",
    "jobs.retry_job": "job.retry",
    "jobs.delete_job": "job.delete",
    "jobs.change_jobs": "jobs.change",
    "admin_jobs.cancel_jobs": "jobs.cancel",
    "admin_jobs.retry_jobs": "jobs.retry",
    "admin_jobs.delete_jobs": "jobs.delete",
    "dead_letters.replay_dead_letter": "dead_letter.replay",
    "dead_letters.remove_dead_letter": "dead_letter.drop",
    "gpus.set_model": "model.set",
    "queues.pause_queue": "queue.pause",
    "queues.drain_worker": "worker.drain",
    "webhooks.redeliver": "delivery.redeliver",
    "webhooks.create_webhook": "webhook.create",
    "webhooks.change_webhook": "webhook.change",
    "webhooks.delete_webhook": "webhook.delete",
    "webhooks.rotate_webhook_secret": "webhook_secret.rotate",
    "webhooks.show_owner_secret": "webhook_secret.show",
    "webhooks.rotate_owner_secret": "webhook_secret.rotate",
}
"""Recorded endpoints and their actions. Reads are not recorded, except reading a secret."""


def add_audit_targets(*ids: str) -> None:
    """Name further objects of the current request, besides those in its path."""
    g.setdefault("audit_targets", []).extend(ids)


def add_audit_details(**details: Any) -> None:
    """Add fields to the line of the current request. Only numbers, names and ids: a user's text may be part of a prompt."""
    g.setdefault("audit_details", {}).update(details)


def record_actions(app: Flask, log: AuditLog) -> None:
    """Record every call in ``ACTIONS``, including rejected calls, unless the key is unknown."""

    @app.after_request
    def record(response: Response) -> Response:
        action, made_by = ACTIONS.get(request.endpoint or ""), g.get("caller")
        if action is not None and made_by is not None and request.method != "OPTIONS":
            log.record(
                action,
                _actor(made_by),
                targets=[*map(str, (request.view_args or {}).values()), *g.get("audit_targets", ())],
                outcome=DONE if response.status_code < 400 else _error_code(response),
                request_id=g.get("request_id", ""),
                details=g.get("audit_details"),
            )
        return response


def _actor(made_by: Caller) -> Actor:
    return Actor(owner=made_by.owner, key=made_by.key_id, key_name=made_by.key_name, address=request.remote_addr or "")


def _error_code(response: Response) -> str:
    error = (response.get_json(silent=True) or {}).get("error", {}) if response.is_json else {}
    return str(error.get("code") or response.status_code)
