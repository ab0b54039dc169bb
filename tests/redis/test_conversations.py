"""Conversations of ``/v1`` on a real Redis: who may use them, how long they are kept, and that a response is added once."""

from dataclasses import replace
from typing import Any

import pytest
import redis

from api.app import create_app
from shared.errors import NotFound, QuotaExceeded
from shared.jobs.models import Job, Status
from shared.jobs.submission import ResponseRecord, Submission
from shared.openai.conversations import Conversation, ConversationFull, Conversations, new_conversation_id
from shared.openai.responses.ids import response_id
from shared.openai.responses.store import StoredResponses
from shared.owners.store import ApiKeys
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

DAY = 24 * 3600
QUESTION = {"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "who?"}]}


@pytest.fixture
def conversations(redis_client: redis.Redis, settings: Settings, clock: Clock) -> Conversations:
    limited = replace(settings, max_sessions=2, max_session_bytes=2048)
    return Conversations(redis_client, limited, StoredResponses(redis_client, clock=clock), clock=clock)


def create(conversations: Conversations, owner: str = "ada") -> Conversation:
    return conversations.create(owner, "", {}, new_conversation_id())


def item(number: int, text: str = "x") -> dict[str, Any]:
    return {"id": f"msg_{number}", "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def ids(conversations: Conversations, conversation: Conversation) -> list[str]:
    found = conversations.find(conversation.id, "ada")
    return [each["id"] for each in conversations.items(found, "ada")[0]]


def respond(system: JobSystem, conversation: Conversation) -> str:
    """Submit a response of the conversation; the id of its job."""
    content = {"request": {}, "input": [item(0, "from before"), QUESTION], "new": 1}
    record = ResponseRecord(content=content, conversation=conversation.id)
    spec = {"messages": [{"role": "user", "content": "x"}]}
    return system.submitter.submit_job(
        Submission(kind="generate", queue="q", model="m", spec=spec, owner="ada", response=record)
    ).id


def end(system: JobSystem, job: str, status: Status = Status.COMPLETED) -> None:
    claimed = system.transitions.claim("q", "w", f"claim {job}")
    assert isinstance(claimed, Job)
    result = {"text": "me", "finish_reason": "stop", "usage": {}} if status is Status.COMPLETED else None
    error = {"code": "engine_fault", "message": "x"} if status is Status.FAILED else None
    assert system.transitions.finish((claimed.id, 1), status, result=result, error=error) == "ok"  # type: ignore[arg-type]


def test_a_response_is_added_once_and_only_when_it_has_completed(system: JobSystem, conversations: Conversations) -> None:
    conversation = create(conversations)
    conversations.add_items(conversation, "ada", [item(0)])
    job = respond(system, conversation)
    assert ids(conversations, conversation) == ["msg_0"]
    end(system, job)
    answer = f"msg_{job.partition('_')[2]}"
    for _ in range(2):
        assert ids(conversations, conversation) == ["msg_0", "msg_1", answer]
    # It is not needed any more.
    system.transitions.delete(job, "ada")
    assert ids(conversations, conversation) == ["msg_0", "msg_1", answer]


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_response_that_did_not_complete_adds_nothing(
    system: JobSystem, conversations: Conversations, redis_client: redis.Redis, status: Status
) -> None:
    conversation = create(conversations)
    end(system, respond(system, conversation), status)
    assert ids(conversations, conversation) == []
    assert not redis_client.exists(f"eh:conversation:{conversation.id}:pending")


def test_a_response_whose_job_was_deleted_adds_nothing(system: JobSystem, conversations: Conversations) -> None:
    conversation = create(conversations)
    job = respond(system, conversation)
    end(system, job)
    system.transitions.delete(job, "ada")
    assert ids(conversations, conversation) == []


def test_a_response_of_a_deleted_conversation_leaves_nothing(
    system: JobSystem, conversations: Conversations, redis_client: redis.Redis
) -> None:
    conversation = create(conversations)
    job = respond(system, conversation)
    conversations.delete(conversation, "ada")
    end(system, job)
    later = respond(system, conversation)
    end(system, later)
    for ended in (job, later):
        found = system.queries.get_job(ended)
        assert found is not None
        conversations.add_response(found)
    assert not list(redis_client.scan_iter("eh:conversation:*"))
    assert redis_client.hgetall("eh:owner:ada:conversation_bytes") in ({}, {"total": "0"})


def test_a_conversation_is_kept_for_as_long_as_it_is_used(conversations: Conversations, redis_client: redis.Redis) -> None:
    conversation = create(conversations)
    conversations.add_items(conversation, "ada", [item(1)])
    keys = sorted(redis_client.scan_iter("*conversation*"))
    assert keys
    for key in keys:
        redis_client.expire(key, 60)
    conversations.find(conversation.id, "ada")
    assert all(redis_client.ttl(key) > 29 * DAY for key in keys)  # type: ignore[operator]


def test_limits_count_conversations_and_their_bytes(conversations: Conversations, clock: Clock) -> None:
    first, second = create(conversations), create(conversations)
    with pytest.raises(QuotaExceeded):
        create(conversations)
    create(conversations, "bob")
    conversations.add_items(first, "ada", [item(1, "x" * 3000)])
    with pytest.raises(ConversationFull, match="2048 bytes"):
        conversations.add_items(first, "ada", [item(2)])
    with pytest.raises(ConversationFull):
        conversations.require_room(conversations.find(first.id, "ada"))
    conversations.delete_item(first, "ada", "msg_1")
    assert conversations.find(first.id, "ada").size == 0
    conversations.add_items(first, "ada", [item(2)])
    conversations.delete(second, "ada")
    create(conversations)
    # Those that have expired do not count.
    clock.advance(31 * DAY)
    create(conversations)


def test_conversations_of_other_owners_do_not_exist(settings: Settings, redis_client: redis.Redis) -> None:
    redis_client.hset("eh:models", "gemma-3-270m", "1")
    client = create_app(settings).test_client()
    ada, bob = ({"Authorization": f"Bearer {ApiKeys(redis_client).create(name)[1]}"} for name in ("ada", "bob"))
    id = client.post("/v1/conversations", json={"items": [{"role": "user", "content": "x"}]}, headers=ada).get_json()["id"]
    path = f"/v1/conversations/{id}"
    first = client.get(f"{path}/items", headers=ada).get_json()["data"][0]["id"]
    body: Any = {"items": [{"role": "user", "content": "y"}]}
    calls: list[tuple[str, str, Any]] = [
        ("GET", path, None),
        ("POST", path, {"metadata": {}}),
        ("DELETE", path, None),
        ("GET", f"{path}/items", None),
        ("POST", f"{path}/items", body),
        ("GET", f"{path}/items/{first}", None),
        ("DELETE", f"{path}/items/{first}", None),
        ("POST", "/v1/responses", {"input": "x", "conversation": id, "background": True}),
        ("POST", "/v1/responses/input_tokens", {"input": "x", "conversation": id}),
    ]
    for method, called, sent in calls:
        answer = client.open(called, method=method, json=sent, headers=bob)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "conversation_not_found"), (method, called)
    assert client.get(f"{path}/items/{first}", headers=ada).get_json()["content"][0]["text"] == "x"


def test_a_key_that_may_not_see_everything_uses_its_own_conversations(settings: Settings, redis_client: redis.Redis) -> None:
    redis_client.hset("eh:models", "gemma-3-270m", "1")
    client = create_app(settings).test_client()
    keys = ApiKeys(redis_client)
    secrets = (keys.create("ada")[1], keys.create("ada", scopes=["generate"])[1])
    whole, limited = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
    made = {
        name: client.post("/v1/conversations", json={}, headers=headers).get_json()["id"]
        for name, headers in (("whole", whole), ("limited", limited))
    }
    assert client.get(f"/v1/conversations/{made['limited']}", headers=limited).status_code == 200
    assert client.get(f"/v1/conversations/{made['limited']}", headers=whole).status_code == 200
    refused = client.get(f"/v1/conversations/{made['whole']}", headers=limited)
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "permission_denied")
    body = {"input": "x", "conversation": made["whole"], "background": True}
    assert client.post("/v1/responses", json=body, headers=limited).status_code == 403


def test_a_conversation_is_found_by_the_id_of_its_response(system: JobSystem, conversations: Conversations) -> None:
    conversation = create(conversations)
    job = respond(system, conversation)
    found = system.queries.get_job(job)
    assert found is not None
    assert found.conversation == conversation.id
    with pytest.raises(NotFound):
        conversations.find(response_id(job), "ada")
