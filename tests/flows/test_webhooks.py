"""Webhooks over the whole stack: from the submission through the io worker to a receiver that verifies the signature."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from shared.webhooks.endpoints import new_secret
from testing.receiver import Received, Receiver, status
from testing.repository import REPOSITORY
from testing.stack import QUICK, Stack
from testing.waiting import wait_until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that may call receivers on loopback."""
    environment = {**QUICK, "ENGINEHOUSE_WEBHOOK_ALLOW": "127.0.0.0/8", "ENGINEHOUSE_WEBHOOK_SECONDS": "2"}
    stack = Stack(tmp_path_factory.mktemp("webhooks"), environment=environment)
    try:
        yield stack.start()
    finally:
        stack.kill()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(status(200, b"thank you")) as receiver:
        yield receiver


def request(receiver: Receiver, number: int = 1) -> Received:
    """The request with this number, once it has arrived."""
    wait_until(lambda: len(receiver.received) >= number, f"request {number} arrives")
    return receiver.received[number - 1]


def owner_secret(stack: Stack) -> str:
    return str(stack.client.get("/webhooks/secret").json()["secret"])


def deliveries(stack: Stack, job: str) -> list[dict[str, Any]]:
    return list(stack.client.get(f"/jobs/{job}/deliveries").json()["data"])


def delivered(stack: Stack, job: str, status: str = "delivered") -> dict[str, Any]:
    """The only delivery of a job, once it has this status."""
    wait_until(lambda: [each["status"] for each in deliveries(stack, job)] == [status], f"the delivery is {status}")
    return deliveries(stack, job)[0]


def register(stack: Stack, **fields: Any) -> dict[str, Any]:
    answer = stack.post("/webhooks", fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_delivery_carries_the_job_as_the_api_shows_it(stack: Stack, receiver: Receiver) -> None:
    job = stack.generate("tell me", webhook={"url": receiver.url})["id"]
    content = request(receiver).verified(owner_secret(stack))
    # The prompt stays here.
    assert (content["type"], content["data"]) == ("job.completed", stack.ended(job) | {"summary": ""})
    delivery = delivered(stack, job)
    assert (delivery["id"], delivery["url"], delivery["event"]) == (request(receiver).id, receiver.url, "job.completed")
    [attempt] = delivery["attempts"]
    assert (attempt["status"], attempt["answer"], attempt["outcome"]) == (200, "thank you", "delivered")
    assert attempt["number"] == 1
    assert len(receiver.received) == 1


def test_a_webhook_secret_is_never_shown(stack: Stack, receiver: Receiver) -> None:
    secret = new_secret()
    job = stack.generate("hush", webhook={"url": receiver.url, "secret": secret})["id"]
    assert request(receiver).verified(secret)
    delivery = delivered(stack, job)
    for path in (f"/jobs/{job}", f"/jobs/{job}/deliveries", f"/deliveries/{delivery['id']}", "/deliveries"):
        assert secret not in stack.client.get(path).text
    assert secret not in stack.log.read_text()
    assert secret.encode() not in request(receiver).body


def test_uploads_and_chats_are_delivered_too(stack: Stack, receiver: Receiver) -> None:
    webhook = {"url": receiver.url}
    file = {"file": ("note.txt", io.BytesIO(b"The archive is open on weekdays."))}
    answer = stack.client.post("/collections/delivered/documents", files=file, data={"webhook": json.dumps(webhook)})
    assert answer.status_code == 202, answer.text
    assert request(receiver).verified(owner_secret(stack))["data"]["id"] == answer.json()["batch"]["id"]
    file = {"file": ("other.txt", io.BytesIO(b"Loans are for thirty days."))}
    answer = stack.client.post("/upload", files=file, data={"webhook": json.dumps(webhook)})
    assert answer.status_code == 202, answer.text
    assert request(receiver, 2).verified(owner_secret(stack))["data"]["kind"] == "ingest"
    chat = stack.post("/chat/start", {"message": "hello", "webhook": webhook})
    assert request(receiver, 3).verified(owner_secret(stack))["data"]["id"] == chat.json()["job"]


def test_a_cancellation_is_delivered(stack: Stack, receiver: Receiver) -> None:
    batch = {"url": receiver.url, "events": ["job.started", "job.completed", "job.cancelled"]}
    job = stack.generate("x " * 50, webhook=batch)["id"]
    stack.client.post(f"/jobs/{job}/cancel")
    ended = stack.ended(job)["status"]
    wait_until(lambda: f"job.{ended}" in [each["event"] for each in deliveries(stack, job)], "its end is delivered")


def test_a_registered_webhook_receives_what_it_selects(stack: Stack, receiver: Receiver) -> None:
    webhook = register(stack, url=receiver.url, events=["job.completed"], job_kinds=["generate"], description="orders")
    try:
        job = stack.generate("one")["id"]
        assert request(receiver).verified(webhook["secret"])["data"]["id"] == job
        assert delivered(stack, job)["webhook"] == webhook["id"]
        listed = stack.client.get("/webhooks").json()["data"]
        assert [each["id"] for each in listed] == [webhook["id"]]
        assert "secret" not in listed[0]
        rotated = stack.client.post(f"/webhooks/{webhook['id']}/rotate").json()
        again = stack.generate("two")["id"]
        assert request(receiver, 2).verified(webhook["secret"]) == request(receiver, 2).verified(rotated["secret"])
        assert delivered(stack, again)["id"] == request(receiver, 2).id
        changed = stack.client.patch(f"/webhooks/{webhook['id']}", json={"enabled": False})
        assert (changed.json()["enabled"], changed.json()["url"]) == (False, receiver.url)
        stack.ended(quiet := stack.generate("three")["id"])
        assert deliveries(stack, quiet) == []
    finally:
        assert stack.client.delete(f"/webhooks/{webhook['id']}").json()["deleted"]
    assert stack.client.get(f"/webhooks/{webhook['id']}").json()["error"]["code"] == "webhook_not_found"


def test_410_disables_and_patch_enables_again(stack: Stack) -> None:
    with Receiver(status(410), status(204)) as receiver:
        webhook = register(stack, url=receiver.url)
        try:
            delivery = delivered(stack, stack.generate("gone?")["id"], "failed")
            assert "410" in stack.client.get(f"/webhooks/{webhook['id']}").json()["disabled_reason"]
            refused = stack.client.post(f"/deliveries/{delivery['id']}/redeliver")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "webhook_disabled")
            assert stack.client.patch(f"/webhooks/{webhook['id']}", json={"enabled": True}).json()["enabled"]
            assert stack.client.post(f"/deliveries/{delivery['id']}/redeliver").status_code == 202
            assert request(receiver, 2).id == request(receiver).id
        finally:
            stack.client.delete(f"/webhooks/{webhook['id']}")


def test_a_failed_attempt_is_listed_and_can_be_repeated(stack: Stack) -> None:
    with Receiver(status(500, b"no room " * 500), status(204)) as receiver:
        job = stack.generate("twice", webhook={"url": receiver.url})["id"]
        wait_until(
            lambda: [each["attempts"][0]["status"] for each in deliveries(stack, job) if each["attempts"]] == [500], "one failed"
        )
        [pending] = deliveries(stack, job)
        assert (pending["status"], len(pending["attempts"][0]["answer"])) == ("pending", 1024)
        assert 4 < pending["next_attempt_at"] - pending["attempts"][0]["ended_at"] < 6, "five seconds, give or take a tenth"
        assert pending["id"] in [each["id"] for each in stack.client.get("/deliveries?status=pending").json()["data"]]
        assert stack.client.post(f"/deliveries/{pending['id']}/redeliver").status_code == 202
        assert len(delivered(stack, job)["attempts"]) == 2
        one, other = receiver.received
        assert (one.id, one.body) == (other.id, other.body)


@pytest.mark.parametrize(
    ("webhook", "param"),
    [
        ({"url": "http://10.0.0.1/"}, "webhook.url"),
        ({"url": "http://[::1]/"}, "webhook.url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "webhook.url"),
        ({"url": "http://2130706433/"}, "webhook.url"),
        ({"url": "http://[64:ff9b::a00:1]/"}, "webhook.url"),
        ({"url": "ftp://8.8.8.8/"}, "webhook.url"),
        ({"url": "http://user@8.8.8.8/"}, "webhook.url"),
        ({"url": "http://8.8.8.8/", "events": ["job.done"]}, "webhook.events.0"),
        ({"url": "http://8.8.8.8/", "events": []}, "webhook.events"),
        ({"url": "http://8.8.8.8/", "secret": "hunter2"}, "webhook.secret"),
        ({"url": "http://8.8.8.8/", "header": "x"}, "webhook.header"),
        ({}, "webhook.url"),
    ],
)
def test_an_invalid_webhook_creates_no_job(stack: Stack, webhook: dict[str, Any], param: str) -> None:
    before = stack.client.get("/jobs?limit=1").json()["data"]
    file = {"file": ("note.txt", io.BytesIO(b"never stored"))}
    for answer in (
        stack.post("/generate", {"prompt": "x", "webhook": webhook}),
        stack.client.post("/upload", files=file, data={"webhook": json.dumps(webhook)}),
    ):
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
        assert "hunter2" not in answer.text
    assert stack.client.get("/jobs?limit=1").json()["data"] == before


def test_invalid_requests_are_rejected_with_a_code(stack: Stack) -> None:
    def code(answer: httpx2.Response) -> tuple[int, str]:
        return answer.status_code, answer.json()["error"]["code"]

    assert code(stack.post("/webhooks", {"url": "http://192.168.0.1/"})) == (422, "invalid_value")
    assert stack.post("/webhooks", {"url": "http://192.168.0.1/"}).json()["error"]["param"] == "url"
    assert code(stack.client.get("/webhooks/whk_nothing")) == (404, "webhook_not_found")
    assert code(stack.client.get("/deliveries/dlv_nothing")) == (404, "delivery_not_found")
    assert code(stack.client.post("/deliveries/dlv_nothing/redeliver")) == (404, "delivery_not_found")
    assert code(stack.client.get("/deliveries?status=lost")) == (422, "invalid_value")
    assert code(stack.client.get("/deliveries?after=x")) == (422, "invalid_value")
    assert code(stack.client.get("/jobs/job_nothing/deliveries")) == (404, "job_not_found")
    file = {"file": ("note.txt", io.BytesIO(b"x"))}
    assert code(stack.client.post("/upload", files=file, data={"webhook": "no JSON"})) == (422, "invalid_value")


def test_the_command_listens_and_verifies(stack: Stack) -> None:
    listening = subprocess.Popen(
        [sys.executable, "-u", "-m", "cli.main", "webhooks", "listen", "--port", "0", "--data", str(stack.data)],
        cwd=REPOSITORY,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert listening.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", listening.stdout.readline())
        assert found is not None
        job = stack.generate("listen", webhook={"url": found[0]})["id"]
        line = listening.stdout.readline()
        assert "verified job.completed" in line
        assert job in line
        forged = httpx2.post(found[0], content=b"{}", headers={"webhook-id": "msg_1"})
        assert forged.status_code == 401
        assert "msg_1 rejected" in listening.stdout.readline()
        assert delivered(stack, job)["attempts"][0]["status"] == 204
    finally:
        listening.kill()
        listening.wait(240)


def test_webhooks_and_deliveries_of_another_owner_are_not_found(stack: Stack, receiver: Receiver) -> None:
    """Runs last, because from here on every request needs a key."""
    delivery = delivered(stack, stack.generate("mine", webhook={"url": receiver.url})["id"])
    webhook = register(stack, url=receiver.url)
    line = [sys.executable, "-m", "cli.main", "keys", "create", "--name", "bob", "--json", "--data", str(stack.data)]
    made = subprocess.run(line, cwd=REPOSITORY, env=stack.environment, capture_output=True, text=True, timeout=240, check=True)
    bob = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    for method, path in (
        ("GET", f"/deliveries/{delivery['id']}"),
        ("POST", f"/deliveries/{delivery['id']}/redeliver"),
        ("GET", f"/jobs/{delivery['job']}/deliveries"),
        ("GET", f"/webhooks/{webhook['id']}"),
        ("DELETE", f"/webhooks/{webhook['id']}"),
        ("POST", f"/webhooks/{webhook['id']}/rotate"),
    ):
        assert stack.client.request(method, path, headers=bob).status_code == 404, path
    changed = stack.client.patch(f"/webhooks/{webhook['id']}", json={"enabled": False}, headers=bob)
    assert changed.status_code == 404
    assert stack.client.get("/deliveries", headers=bob).json()["data"] == []
    assert stack.client.get("/webhooks", headers=bob).json()["data"] == []
