"""Webhook dispatcher against receivers that misbehave: each attempt ends in time, uses little memory, and records what happened."""

import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import WebhookVerificationError

from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries, Delivery
from shared.webhooks.endpoints import FINAL_EVENTS, KINDS, Endpoints, new_secret
from shared.webhooks.ssrf import AddressPolicy, parse, parse_networks
from testing.receiver import Receiver, status
from testing.waiting import wait_until
from tests.conftest import JobSystem
from workers.io.webhooks.dispatcher import MAX_BODY_BYTES, WebhookDispatcher
from workers.io.webhooks.http_sender import MAX_READ_BYTES, MAX_RETRY_AFTER_SECONDS, HttpSender

SECONDS = 0.6
# A busy machine ends an attempt later. Receivers hang for a minute.
SLACK_SECONDS = 20.0
LOOPBACK = parse_networks("127.0.0.0/8")


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings) -> JobSystem:
    return JobSystem(redis_client, settings, lambda queue, count: None)


@pytest.fixture
def deliveries(redis_client: redis.Redis) -> Deliveries:
    return Deliveries(redis_client)


@pytest.fixture
def endpoints(redis_client: redis.Redis) -> Endpoints:
    return Endpoints(redis_client)


@pytest.fixture
def dispatcher(settings: Settings) -> WebhookDispatcher:
    quick = replace(settings, webhook_allow="127.0.0.0/8", webhook_seconds=SECONDS, webhook_threads=4, maintenance_seconds=0.05)
    return WebhookDispatcher(quick, "io1", threading.Event())


@pytest.fixture
def sender() -> HttpSender:
    return HttpSender(AddressPolicy(LOOPBACK), SECONDS)


def finished(system: JobSystem, url: str, secret: str = "", text: str = "done") -> str:
    authority = url.split("/")[2]
    webhook = {"url": url, "authority": authority, "events": FINAL_EVENTS, "endpoint": "", "secret": secret}
    job = system.submitter.submit_job(
        Submission(kind="generate", queue="q", spec={"prompt": "p"}, owner="ada", webhook=webhook)
    ).id
    assert system.transitions.claim("q", "w", f"claim {job}") is not None
    assert system.transitions.finish((job, 1), Status.COMPLETED, result={"text": text, "finish_reason": "stop"}) == "ok"
    return job


def delivered(deliveries: Deliveries, job: str) -> Delivery:
    [delivery] = deliveries.list_for_job(job)
    return delivery


def hang(receiver: Receiver) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: receiver.closing.wait(60) and None


def drip(receiver: Receiver, piece: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    """Send bytes endlessly, so slowly that no single read times out."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        while not receiver.closing.wait(0.05):
            handler.wfile.write(piece)

    return answer


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
    for _ in range(1600):
        handler.wfile.write(b"x" * 65536)


def raw(text: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: handler.wfile.write(text) and None


def test_a_delivery_is_signed_and_describes_its_job(
    dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries, endpoints: Endpoints
) -> None:
    with Receiver(status(200, b"thank you")) as receiver:
        job = finished(system, receiver.url)
        assert dispatcher.deliver_one()
        assert not dispatcher.deliver_one()
    [request] = receiver.received
    content = request.verified(endpoints.owner_secret("ada"))
    assert (content["type"], content["data"]["id"], content["data"]["status"]) == ("job.completed", job, "completed")
    assert content["data"]["result"]["text"] == "done"
    delivery = delivered(deliveries, job)
    assert (delivery.status, request.id) == ("delivered", delivery.id)
    assert (delivery.attempts[0].status, delivery.attempts[0].answer) == (200, "thank you")
    with pytest.raises(WebhookVerificationError):
        request.verified(new_secret())


def test_a_webhook_with_its_own_secret_is_signed_with_it(dispatcher: WebhookDispatcher, system: JobSystem) -> None:
    secret = new_secret()
    with Receiver() as receiver:
        finished(system, receiver.url, secret)
        dispatcher.deliver_one()
    assert receiver.received[0].verified(secret)


def test_both_secrets_verify_after_a_rotation(dispatcher: WebhookDispatcher, system: JobSystem, endpoints: Endpoints) -> None:
    with Receiver() as receiver:
        authority = f"127.0.0.1:{receiver.port}"
        endpoint = endpoints.create(
            "ada", url=receiver.url, authority=authority, events=FINAL_EVENTS, job_kinds=KINDS, description="", secret=""
        )
        rotated = endpoints.rotate(endpoint.id, "ada")
        finished(system, "http://127.0.0.1:9/elsewhere")
        while not receiver.received:
            assert dispatcher.deliver_one()
    assert receiver.received[0].verified(endpoint.secret) == receiver.received[0].verified(rotated.secret)


def test_every_attempt_has_the_same_id_and_body(dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries) -> None:
    with Receiver(status(500, b"not now"), status(204)) as receiver:
        job = finished(system, receiver.url)
        dispatcher.deliver_one()
        first = delivered(deliveries, job)
        assert (first.status, first.attempts[0].status, first.attempts[0].answer) == ("pending", 500, "not now")
        deliveries.redeliver(first.id, "ada")
        dispatcher.deliver_one()
    first_request, second_request = receiver.received
    assert (first_request.id, first_request.body) == (second_request.id, second_request.body)
    assert delivered(deliveries, job).status == "delivered"


def test_retry_after_is_respected(dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries) -> None:
    with Receiver(status(429, Retry_After="3600")) as receiver:
        job = finished(system, receiver.url)
        dispatcher.deliver_one()
    delivery = delivered(deliveries, job)
    assert delivery.next_at is not None
    assert delivery.attempts[0].ended_at is not None
    assert delivery.next_at - delivery.attempts[0].ended_at == 3_600_000


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("120", 120, 120),
        ("0", 0, 0),
        ("99999999", MAX_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0, 0),
        ("Sat, 01 Jan 2300 00:00:00 GMT", MAX_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS),
        ("-5", 0, 0),
        ("soon", 0, 0),
        ("1e9", 0, 0),
    ],
)
def test_retry_after_is_parsed_in_every_form(sender: HttpSender, value: str, low: float, high: float) -> None:
    with Receiver(status(503, Retry_After=value)) as receiver:
        reply = sender.post(receiver.url, b"{}", {})
    assert low <= reply.retry_after <= high


def test_410_disables_the_endpoint(
    dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries, endpoints: Endpoints
) -> None:
    with Receiver(status(410)) as receiver:
        authority = f"127.0.0.1:{receiver.port}"
        endpoint = endpoints.create(
            "ada", url=receiver.url, authority=authority, events=FINAL_EVENTS, job_kinds=KINDS, description="", secret=""
        )
        webhook = {"url": receiver.url, "authority": authority, "events": FINAL_EVENTS, "endpoint": endpoint.id, "secret": ""}
        job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="ada", webhook=webhook)).id
        system.transitions.cancel(job, "ada")
        system.transitions.claim("q", "w", "t")
        dispatcher.deliver_one()
    assert endpoints.get(endpoint.id, "ada").disabled
    assert delivered(deliveries, job).status == "failed"


MISBEHAVIOURS: dict[str, Callable[[Receiver], Callable[[BaseHTTPRequestHandler], Any]]] = {
    "hang": hang,
    "drip a status line": lambda receiver: drip(receiver, b"H"),
    "drip headers": lambda receiver: drip(receiver, b"HTTP/1.1 200 OK\r\nX-A: b"),
    "drip 100 Continue": lambda receiver: drip(receiver, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "reset": lambda receiver: reset,
    "close": lambda receiver: lambda handler: None,
    "no HTTP": lambda receiver: raw(b"\x00\xff rubbish\r\n\r\n"),
    "bad status": lambda receiver: raw(b"HTTP/1.1 9999 Huh\r\n\r\n"),
    "a line without end": lambda receiver: raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000),
    "headers without end": lambda receiver: raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000),
}


@pytest.mark.parametrize("how", MISBEHAVIOURS)
def test_an_attempt_ends_in_time_whatever_the_receiver_does(
    dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries, how: str
) -> None:
    with Receiver() as receiver:
        receiver.answers = [MISBEHAVIOURS[how](receiver)]
        job = finished(system, receiver.url)
        started = time.monotonic()
        assert dispatcher.deliver_one()
        assert time.monotonic() - started < SECONDS + SLACK_SECONDS
    delivery = delivered(deliveries, job)
    assert delivery.status == "pending"
    [attempt] = delivery.attempts
    assert (attempt.outcome, attempt.status) == ("failed", None)
    assert attempt.error


def test_the_status_decides_even_if_the_body_never_ends(
    dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries
) -> None:
    with Receiver() as receiver:
        dripping = drip(receiver, b"1\r\nx\r\n")

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            dripping(handler)

        receiver.answers = [answer]
        job = finished(system, receiver.url)
        started = time.monotonic()
        dispatcher.deliver_one()
        assert time.monotonic() - started < SECONDS + SLACK_SECONDS
    assert delivered(deliveries, job).status == "delivered"


def test_little_is_read_of_an_answer_of_100_mb(sender: HttpSender) -> None:
    with Receiver(endless) as receiver:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reply = sender.post(receiver.url, b"{}", {})
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (reply.status, len(reply.answer)) == (200, 1024)
    assert grown_kb < 8 * 1024 > MAX_READ_BYTES / 1024


def test_a_redirect_is_not_followed(dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries) -> None:
    with Receiver() as target, Receiver(status(307, Location=target.url)) as receiver:
        job = finished(system, receiver.url)
        dispatcher.deliver_one()
        assert not target.received
    [attempt] = delivered(deliveries, job).attempts
    assert (attempt.outcome, attempt.status, attempt.error) == ("failed", 307, "answered 307; redirects are not followed")


def test_proxy_settings_of_the_environment_are_ignored(sender: HttpSender, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert sender.post(receiver.url, b"{}", {}).status == 204
        assert not proxy.received


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server socket on loopback that shows whether a connection was made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def requests_to(listener: socket.socket) -> Iterator[bytes]:
    """What each connection sends. A process of another test may also connect: the port may have been that of a server that it knew."""
    with suppress(TimeoutError):
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.settimeout(2)
                yield connection.recv(65536)


def rebinding(*answers: Sequence[str]) -> Callable[[str, int], Sequence[str]]:
    """A resolver that returns these answers in turn, and the last one from then on."""
    left = list(answers)
    return lambda host, port: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "10.0.0.1", "169.254.169.254"])
def test_a_name_that_now_resolves_to_a_private_address_is_not_called(listener: socket.socket, private: str) -> None:
    policy = AddressPolicy(resolve=rebinding(["8.8.8.8"], [private]))
    port = listener.getsockname()[1]
    assert policy.addresses(parse(f"http://hook.example:{port}/")) == ["8.8.8.8"], "at submit"
    reply = HttpSender(policy, SECONDS).post(f"http://hook.example:{port}/", b"{}", {})
    assert reply.status is None
    assert "not a public address" in reply.error
    assert not any(b"hook.example" in request for request in requests_to(listener))


def test_the_checked_address_is_the_one_that_is_dialled() -> None:
    resolved: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        resolved.append(host)
        return ["127.0.0.1"] if len(resolved) == 1 else ["10.0.0.1"]

    with Receiver() as receiver:
        reply = HttpSender(AddressPolicy(LOOPBACK, resolve), SECONDS).post(f"http://hook.example:{receiver.port}/x", b"{}", {})
    assert (reply.status, resolved) == (204, ["hook.example"])
    assert receiver.received[0].headers["host"] == f"hook.example:{receiver.port}"


def test_the_next_address_is_tried_if_one_does_not_accept() -> None:
    with Receiver() as receiver:
        policy = AddressPolicy(LOOPBACK, lambda host, port: ["127.9.9.9", "127.0.0.1"])
        assert HttpSender(policy, SECONDS).post(f"http://hook.example:{receiver.port}/", b"{}", {}).status == 204


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for hook.example, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook.example")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hook.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = tmp_path_factory.mktemp("certificate") / "both.pem"
    file.write_bytes(built.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *form))
    return file


@pytest.mark.parametrize(
    ("host", "trusted", "error"),
    [
        ("hook.example", True, ""),
        ("hook.example.", True, ""),
        ("other.example", True, "its certificate is not trusted: Hostname mismatch"),
        ("hook.example", False, "its certificate is not trusted: self-signed certificate"),
    ],
)
def test_the_certificate_is_checked_against_the_name_though_an_address_is_dialled(
    certificate: Path, host: str, trusted: bool, error: str
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    trust = ssl.create_default_context(cafile=str(certificate) if trusted else None)
    with Receiver(certificate=server) as receiver:
        sender = HttpSender(AddressPolicy(LOOPBACK, lambda host, port: ["127.0.0.1"]), 5.0, trust=trust)
        reply = sender.post(f"https://{host}:{receiver.port}/", b"{}", {})
    assert reply.error.startswith(error)
    assert reply.status == (None if error else 204)
    assert len(receiver.received) == (0 if error else 1)


def test_a_dripping_answer_over_tls_ends_in_time(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    with Receiver(certificate=server) as receiver:
        receiver.answers = [drip(receiver, b"H")]
        policy = AddressPolicy(LOOPBACK, lambda host, port: ["127.0.0.1"])
        sender = HttpSender(policy, SECONDS, trust=ssl.create_default_context(cafile=str(certificate)))
        started = time.monotonic()
        reply = sender.post(f"https://hook.example:{receiver.port}/", b"{}", {})
        assert time.monotonic() - started < SECONDS + SLACK_SECONDS
    assert reply.error == f"not answered within {SECONDS:g} s"


def test_a_server_without_a_tls_handshake_is_abandoned_in_time(listener: socket.socket, sender: HttpSender) -> None:
    started = time.monotonic()
    reply = sender.post(f"https://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {})
    assert reply.status is None
    assert time.monotonic() - started < SECONDS + SLACK_SECONDS


def test_plain_http_on_a_tls_port_is_a_readable_error(sender: HttpSender) -> None:
    with Receiver() as receiver:
        reply = sender.post(receiver.url.replace("http:", "https:"), b"{}", {})
    assert reply.error.startswith("TLS failed")


def test_a_large_body_is_sent_without_its_result(dispatcher: WebhookDispatcher, system: JobSystem, endpoints: Endpoints) -> None:
    with Receiver() as receiver:
        finished(system, receiver.url, text="x" * (MAX_BODY_BYTES + 1))
        dispatcher.deliver_one()
    content = receiver.received[0].verified(endpoints.owner_secret("ada"))
    assert content["data"]["result"] is None
    assert "result" in content["data"]["omitted"]
    assert len(receiver.received[0].body) < 4096


def test_a_dead_receiver_delays_no_other(dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries) -> None:
    with Receiver() as dead, Receiver() as alive:
        dead.answers = [hang(dead)]
        for _ in range(12):
            finished(system, dead.url)
        jobs = [finished(system, alive.url) for _ in range(12)]
        dispatcher.start_threads()
        try:
            wait_until(
                lambda: all(delivered(deliveries, job).status == "delivered" for job in jobs),
                "the living receiver has all of its deliveries",
            )
            assert len(dead.received) <= 12
        finally:
            dispatcher.stop_threads()
    assert {request.id for request in alive.received} == {delivered(deliveries, job).id for job in jobs}


def test_a_delivery_is_attempted_at_once(dispatcher: WebhookDispatcher, system: JobSystem, deliveries: Deliveries) -> None:
    dispatcher.start_threads()
    delays = []
    try:
        with Receiver() as receiver:
            for _ in range(10):
                job = finished(system, receiver.url)
                wait_until(lambda job=job: delivered(deliveries, job).status != "pending", "it is delivered", every=0.005)
                delivery = delivered(deliveries, job)
                delays.append(delivery.attempts[0].started_at - delivery.created_at)
    finally:
        dispatcher.stop_threads()
    assert min(delays) < 200


def test_a_draining_worker_claims_no_delivery(settings: Settings, system: JobSystem, deliveries: Deliveries) -> None:
    draining = threading.Event()
    draining.set()
    dispatcher = WebhookDispatcher(
        replace(settings, webhook_allow="127.0.0.0/8", webhook_threads=2, maintenance_seconds=0.05), "io1", draining
    )
    with Receiver() as receiver:
        job = finished(system, receiver.url)
        dispatcher.start_threads()
        dispatcher.stop_threads()
        assert not receiver.received
    assert delivered(deliveries, job).attempts == ()
