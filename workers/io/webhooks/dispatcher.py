"""The pump: threads that take the deliveries whose time has come, sign and post them, and record how each try went.

It wakes when Redis says that there is something, and looks by itself every second, for retries, lapsed leases and messages
that were missed. A worker that dies between a POST and its record leaves a lease that lapses: then another posts the same
again, under the same ``webhook-id``.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import redis
from standardwebhooks import Webhook

from shared.ids import CLAIM, new_id
from shared.jobs.models import from_record
from shared.jobs.serialization import job_view
from shared.redis_connection import connect, is_outage
from shared.settings import Settings
from shared.webhooks.deliveries import CHANNEL, Deliveries, Delivery, DeliveryOutcome
from shared.webhooks.endpoints import Endpoints
from shared.webhooks.ssrf import AddressPolicy, parse_networks
from workers.io.webhooks.http_sender import HttpSender, Reply

logger = logging.getLogger(__name__)

# What is waited after the first try and each further one that failed, about three days in all; within a tenth more or less.
RETRY_SECONDS = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
JITTER = 0.1

# A receiver that takes no more than that gets the rest from `GET /jobs/<job>`.
LARGEST_BODY = 256 * 1024


class WebhookDispatcher:
    """Delivers, from ``start`` to ``stop``. ``paused`` is set while the worker drains: no further try is begun then."""

    def __init__(self, settings: Settings, worker: str, paused: threading.Event, poster: HttpSender | None = None) -> None:
        client = connect(settings.redis_url)
        guard = AddressPolicy(parse_networks(settings.webhook_allow))
        self._settings = settings
        self._worker = worker
        self._deliveries = Deliveries(client)
        self._endpoints = Endpoints(client)
        self._poster = poster or HttpSender(guard, settings.webhook_seconds)
        # The try itself ends in time, so the lease needs no renewal; the rest is for Redis.
        self._lease_seconds = settings.webhook_seconds + 5
        self._paused = paused
        self._stop = threading.Event()
        self._work = threading.Condition()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads. Waits for a Redis that is not there yet."""
        for number in range(self._settings.webhook_threads):
            self._threads.append(threading.Thread(target=self._deliver_forever, name=f"deliver {number}", daemon=True))
        self._threads.append(threading.Thread(target=self._listen_forever, name="deliveries", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Begin nothing more, and wait a little for the tries that run; what is not recorded is tried again elsewhere."""
        self._stop.set()
        with self._work:
            self._work.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads[:-1]:
            thread.join(max(0.0, deadline - time.monotonic()))

    def deliver_one(self) -> bool:
        """Take the next delivery, if there is one, and try it once; whether there was one."""
        delivery = self._deliveries.claim(self._worker, new_id(CLAIM), self._lease_seconds)
        if delivery is None:
            return False
        # Where there was one there may be more.
        self._wake()
        self._try(delivery)
        return True

    def _try(self, delivery: Delivery) -> None:
        secrets = [delivery.secret] if delivery.secret else self._signing_secrets(delivery)
        body = message(delivery, self._deliveries.job_record(delivery.id)).encode()
        reply = self._poster.post(delivery.url, body, headers(delivery.id, body.decode(), secrets, datetime.now(UTC)))
        verdict, delay = judge(reply, delivery.failures)
        logger.info("delivery %s try %d: %s", delivery.id, delivery.number, reply.status or reply.error)

        def record() -> str:
            return self._deliveries.record(
                delivery.id,
                delivery.number,
                verdict,
                delay_seconds=delay,
                status=reply.status,
                latency_ms=reply.latency_ms,
                answer=reply.answer,
                error=reply.error or _refusal(reply),
            )

        self._insist(record)

    def _signing_secrets(self, delivery: Delivery) -> list[str]:
        # An endpoint deleted since the claim: nobody can verify this any more, the owner's secret is as good as another.
        found = self._endpoints.signing_secrets(endpoint=delivery.endpoint, owner=delivery.owner)
        return found or self._endpoints.signing_secrets(endpoint="", owner=delivery.owner)

    def _insist(self, move: Callable[[], object]) -> None:
        """Redis may be away when a try is to be recorded; once the lease has lapsed another try counts, and it is no use."""
        deadline = time.monotonic() + 4 * self._lease_seconds
        while True:
            try:
                move()
                return
            except redis.RedisError as error:
                if not is_outage(error) or time.monotonic() > deadline:
                    raise
                self._stop.wait(0.5)
                if self._stop.is_set():
                    return

    def _deliver_forever(self) -> None:
        while not self._stop.is_set():
            try:
                if self._paused.is_set() or not self.deliver_one():
                    with self._work:
                        self._work.wait(30)
            except Exception as error:  # the top of this thread, which must live as long as the process
                if is_outage(error):
                    logger.debug("Redis is away (%s)", error)
                else:
                    logger.exception("a try at a delivery failed")
                self._stop.wait(1.0)

    def _listen_forever(self) -> None:
        client = connect(self._settings.redis_url, blocks=50.0)
        while not self._stop.is_set():
            try:
                with client.pubsub() as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(CHANNEL)
                    while not self._stop.is_set():
                        # The answer to the subscription wakes too: something may have been missed before.
                        channel.get_message(timeout=self._settings.maintenance_seconds)
                        self._wake()
            except (redis.RedisError, OSError) as error:
                logger.debug("the channel of deliveries broke (%s)", error)
                self._stop.wait(1.0)

    def _wake(self) -> None:
        """One thread is enough: it wakes the next when it has found something."""
        with self._work:
            self._work.notify()


def message(delivery: Delivery, record: Mapping[str, str]) -> str:
    """The body: the same at every try."""
    data = job_view(from_record(record))
    told: dict[str, Any] = {
        "type": delivery.event,
        "timestamp": datetime.fromtimestamp(delivery.created_at / 1000, UTC).isoformat(timespec="milliseconds"),
        "data": data,
    }
    text = _json(told)
    if len(text.encode()) > LARGEST_BODY:
        data |= {"result": None, "omitted": ["result", "response", "attempts"]}
        for name in ("response", "attempts"):
            data.pop(name, None)
        text = _json(told)
    return text


def headers(delivery: str, body: str, secrets: list[str], now: datetime) -> dict[str, str]:
    """The headers of Standard Webhooks 1.0, with a signature by each secret."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "Enginehouse",
        "webhook-id": delivery,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(delivery, now, body) for secret in secrets),
    }


def judge(reply: Reply, failures: int) -> tuple[DeliveryOutcome, float]:
    """What a try means after so many that failed: the verdict, and the seconds until the next try."""
    if reply.status is not None and 200 <= reply.status < 300:
        return "delivered", 0
    if reply.status == 410:
        return "gone", 0
    if failures >= len(RETRY_SECONDS):
        return "exhausted", 0
    delay = RETRY_SECONDS[failures] * random.uniform(1 - JITTER, 1 + JITTER)
    # Never sooner than the other side asks for, and never later for its sake than its own limit allows.
    return "retry", max(delay, reply.retry_after)


def _refusal(reply: Reply) -> str:
    if reply.status is None or 200 <= reply.status < 300:
        return ""
    if 300 <= reply.status < 400:
        return f"answered {reply.status}; redirects are not followed"
    return f"answered {reply.status}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
