"""Invalid requests get the right status and a message that names field and limit, and write nothing."""

from typing import Any

import pytest

from shared.redis_connection import connect
from testing.stack import Stack


@pytest.mark.parametrize(
    ("body", "status", "code", "param", "says"),
    [
        ({"prompt": "x", "model": "nope"}, 404, "model_not_found", "model", "echo"),
        ({"prompt": "x", "model": "not-started"}, 503, "model_not_served", "model", "enginehouse worker gpu"),
        ({"prompt": "x", "model": "hash"}, 422, "invalid_value", "model", "embedding model"),
        ({"prompt": "x", "temperature": 9.5}, 422, "invalid_value", "temperature", "less than or equal to 2, not 9.5"),
        ({"prompt": "x", "max_tokens": "many"}, 422, "invalid_value", "max_tokens", "valid integer, not 'many'"),
        ({"prompt": "x", "max_tokens": 0}, 422, "invalid_value", "max_tokens", "greater than or equal to 1, not 0"),
        ({"prompt": "x", "top_p": 0}, 422, "invalid_value", "top_p", "greater than 0"),
        ({"prompt": "x", "stop": [""]}, 422, "invalid_value", "stop.0", "at least 1 character"),
        ({"prompt": "x", "priority": "now"}, 422, "invalid_value", "priority", "interactive"),
        ({"prompt": "x", "max_token": 5}, 422, "invalid_value", "max_token", "not a field"),
        ({"prompt": "x", "metadata": {"a": 1}}, 422, "invalid_value", "metadata.a", "string"),
        ({"prompt": "x", "collection": "no-such"}, 404, "not_found", "collection", "no-such"),
        ({}, 422, "invalid_value", None, "exactly one of"),
        ({"prompt": "x", "text": "y"}, 422, "invalid_value", None, "prompt and text"),
        ({"messages": []}, 422, "invalid_value", "messages", "at least 1"),
        ({"messages": [{"role": "king", "content": ""}]}, 422, "invalid_value", "messages.0.role", "'king'"),
    ],
)
def test_an_invalid_body_is_rejected(stack: Stack, body: Any, status: int, code: str, param: str | None, says: str) -> None:
    before = _jobs(stack)
    answer = stack.post("/generate", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert says in error["message"]
    assert _jobs(stack) == before


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{not json", "application/json", 400),
        (b"", "application/json", 400),
        (b'{"prompt": NaN}', "application/json", 422),
        (b'{"prompt": "x", "temperature": 1e999}', "application/json", 422),
        (b'{"prompt": "x", "temperature": NaN}', "application/json", 422),
        (b"[" * 200_000, "application/json", 400),
        (b'{"prompt": "x"}', "text/plain", 400),
        (b'{"prompt": "\xff"}', "application/json", 400),
        (b'{"prompt": "' + b"x" * (9 * 1024 * 1024) + b'"}', "application/json", 413),
    ],
)
def test_malformed_json_is_rejected(stack: Stack, content: bytes, content_type: str, status: int) -> None:
    before = _jobs(stack)
    answer = stack.client.post("/generate", content=content, headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
    assert _jobs(stack) == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/jobs/job_nope", 404, "job_not_found"),
        ("GET", "/jobs/job_00000000000000000000000000", 404, "job_not_found"),
        ("POST", "/jobs/job_00000000000000000000000000/cancel", 404, "job_not_found"),
        ("DELETE", "/jobs/job_00000000000000000000000000", 404, "job_not_found"),
        ("GET", "/jobs?limit=0", 422, "invalid_value"),
        ("GET", "/jobs?limit=many", 422, "invalid_value"),
        ("GET", "/jobs?status=odd", 422, "invalid_value"),
        ("GET", "/jobs?after=odd", 422, "invalid_value"),
        ("GET", "/documents/doc_nope", 404, "not_found"),
        ("GET", "/documents/..%2f..%2fetc%2fpasswd", 404, "route_not_found"),
        ("GET", "/collections/nope/documents", 404, "not_found"),
        ("GET", "/chat/history/nope", 404, "session_not_found"),
        ("GET", "/no/such/call", 404, "route_not_found"),
        ("PUT", "/generate", 405, "method_not_allowed"),
        ("POST", "/upload", 400, "file_missing"),
    ],
)
def test_a_missing_object_or_route_is_answered_in_json(stack: Stack, method: str, path: str, status: int, code: str) -> None:
    answer = stack.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_an_invalid_collection_name_is_rejected(stack: Stack) -> None:
    answer = stack.client.post("/collections/bad%20name/documents", files={"file": ("a.txt", b"text")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "collection")
    error = stack.post("/collections", {"name": "bad name"}).json()["error"]
    rule = "must be 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit"
    assert (error["param"], error["message"]) == ("name", f"name: {rule}, not 'bad name'")


@pytest.mark.parametrize("preference", ["wait=forever", "wait=100000"])
def test_an_invalid_wait_is_rejected(stack: Stack, preference: str) -> None:
    assert stack.post("/generate", {"prompt": "x"}, Prefer=preference).status_code == 422


def test_an_invalid_wait_deletes_nothing(stack: Stack) -> None:
    files = {"file": ("kept.txt", b"Kept although its deletion was asked for.")}
    uploaded = stack.client.post("/collections/kept/documents", files=files).json()
    stack.ended(uploaded["batch"]["id"])
    document = uploaded["data"][0]["id"]
    before = _jobs(stack)
    for method, path, body in (
        ("DELETE", f"/documents/{document}", None),
        ("DELETE", f"/documents/{document}/chunks/0", None),
        ("DELETE", "/collections/kept", None),
        ("DELETE", "/delete_document", {"ids": [document]}),
        ("DELETE", f"/delete_chunk/{document}:0", None),
        ("POST", "/clear_db", {"confirm": True}),
    ):
        answer = stack.client.request(method, path, json=body, headers={"Prefer": "wait=forever"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Prefer"), path
    assert _jobs(stack) == before
    assert stack.client.get("/collections/kept").json()["documents"] == 1


def test_a_page_of_another_origin_is_rejected(stack: Stack) -> None:
    answer = stack.post("/generate", {"prompt": "x"}, Origin="http://evil.example")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_refused")
    assert stack.post("/generate", {"prompt": "x"}, Origin=stack.url).status_code == 202
    rebound = stack.client.get("/models", headers={"Host": "evil.example"})
    assert rebound.status_code == 400


def _jobs(stack: Stack) -> int:
    return int(str(connect(stack.redis_url()).zcard("eh:owner:local:jobs")))
