"""Webhook dispatcher: threads that claim due deliveries, sign and send them, and record how each attempt went.

A dispatcher wakes up when Redis announces a delivery, and when a retry or the end of a lease is due. Every few seconds it looks for what
it may have missed. If a worker dies between the POST and its record, the lease of the delivery lapses and another worker sends it
again under the same ``webhook-id``.
"""

import json
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from standardwebhooks import Webhook

from shared.channel_listener import ChannelListener
from shared.ids import CLAIM, new_id
from shared.jobs.models import from_record
from shared.jobs.serialization import job_view
from shared.redis_connection import connect, is_outage
from shared.settings import Settings
from shared.tracing import span
from shared.webhooks.deliveries import CHANNEL, Deliveries, Delivery, DeliveryOutcome
from shared.webhooks.endpoints import OPENAI_EVENTS, Endpoints
from shared.webhooks.ssrf import AddressPolicy, parse_networks
from workers.io.webhooks.http_sender import HttpSender, Reply
from workers.runtime.outage import OutageLog, retry_through_outage

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The pause after the first failed attempt and after each further one, about three days in all, give or take JITTER.
RETRY_SECONDS = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
JITTER = 0.1

# A larger message is sent without its result; the receiver can get that from `GET /jobs/<job>`.
MAX_BODY_BYTES = 256 * 1024

# Of the objects that events of OpenAI's API are about; the rest of their ids is that of their job's.
ID_PREFIXES = {"batch": "batch", "response": "resp"}

# In rounds of maintenance, how often to ask Redis when no delivery is known to be due.
LOOK_ROUNDS = 5

# How long an idle thread sleeps if nothing wakes it. The listener wakes one when a delivery may be due.
IDLE_SECONDS = 600.0


class WebhookDispatcher:
    """Delivers from ``start_threads`` to ``stop_threads``. While ``paused`` is set, as during a drain, it claims no delivery."""

    def __init__(self, settings: Settings, worker: str, paused: threading.Event, sender: HttpSender | None = None) -> None:
        client = connect(settings.redis_url)
        policy = AddressPolicy(parse_networks(settings.webhook_allow))
        self._settings = settings
        self._worker = worker
        self._deliveries = Deliveries(client)
        self._endpoints = Endpoints(client)
        self._sender = sender or HttpSender(policy, settings.webhook_seconds)
        # An attempt has its own time limit, so its lease needs no renewal; the extra seconds are for Redis.
        self._lease_seconds = settings.webhook_seconds + 5
        self._paused = paused
        self._outage = OutageLog(logger, "webhook deliveries")
        self._stopping = threading.Event()
        self._work = threading.Condition()
        self._look_seconds = LOOK_ROUNDS * settings.maintenance_seconds
        # When to look for the next delivery, and when Redis was asked for that time.
        self._look_at = self._asked_at = -math.inf
        self._senders: list[threading.Thread] = []
        self._listener = ChannelListener(
            settings.redis_url,
            CHANNEL,
            lambda _: self._wake_one(),
            on_subscribed=self._wake_one,
            on_silence=self._wake_if_due,
            silence_seconds=settings.maintenance_seconds,
        )

    def start_threads(self) -> None:
        """Start the sending threads and the one that listens for announcements. Redis may come later."""
        for number in range(self._settings.webhook_threads):
            self._senders.append(threading.Thread(target=self._deliver_until_stopped, name=f"deliver {number}", daemon=True))
        for thread in self._senders:
            thread.start()
        self._listener.start_listening()

    def stop_threads(self, seconds: float = 5.0) -> None:
        """Claim nothing more, and wait up to ``seconds`` for running attempts. One that is not recorded is repeated elsewhere."""
        self._stopping.set()
        self._listener.stop_listening()
        with self._work:
            self._work.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._senders:
            thread.join(max(0.0, deadline - time.monotonic()))

    def deliver_one(self) -> bool:
        """Claim the next due delivery and make one attempt. Returns False if none was due."""
        token = new_id(CLAIM)
        delivery = self._through_outage(lambda: self._deliveries.claim(self._worker, token, self._lease_seconds))
        if delivery is None:
            self._plan_look()
            return False
        # More may be due.
        self._wake_one()
        self._attempt_delivery(delivery)
        return True

    def _attempt_delivery(self, delivery: Delivery) -> None:
        job = self._through_outage(lambda: self._deliveries.job_record(delivery))
        if not job:
            return  # the job was deleted after the claim, and its deliveries with it
        secrets = [delivery.secret] if delivery.secret else self._through_outage(lambda: self._signing_secrets(delivery))
        body = webhook_body(delivery, job)
        headers = signed_headers(delivery.id, body, secrets, datetime.now(UTC))
        with span("webhook delivery", "client", _attributes_of(delivery), parent=job.get("traceparent", "")) as sending:
            if sending.traceparent:
                headers["traceparent"] = sending.traceparent
            reply = self._sender.post(delivery.url, body.encode(), headers)
            if reply.status is not None:
                sending.set_attributes({"http.response.status_code": reply.status})
            if problem := reply.error or _status_error(reply):
                sending.fail(problem)
        outcome, delay = retry_decision(reply, delivery.failures)
        logger.info("delivery %s attempt %d: %s", delivery.id, delivery.number, reply.status or reply.error)

        def record() -> str:
            return self._deliveries.record_attempt(
                delivery.id,
                delivery.number,
                outcome,
                delay_seconds=delay,
                status=reply.status,
                latency_ms=reply.latency_ms,
                answer=reply.answer,
                error=reply.error or _status_error(reply),
            )

        self._through_outage(record)

    def _through_outage(self, call: Callable[[], T]) -> T:
        """Call until Redis answers or this dispatcher stops: a claimed delivery is not lost because Redis restarts."""
        return retry_through_outage(call, self._outage, sleep=self._stopping.wait)

    def _signing_secrets(self, delivery: Delivery) -> list[str]:
        # If the endpoint was deleted after the claim, its secret is gone, so the owner's secret signs.
        found = self._endpoints.signing_secrets(endpoint=delivery.endpoint, owner=delivery.owner)
        return found or self._endpoints.signing_secrets(endpoint="", owner=delivery.owner)

    def _deliver_until_stopped(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._paused.is_set() or not self.deliver_one():
                    with self._work:
                        # Checked under the lock: a stop between the claim and here would not be noticed.
                        if not self._stopping.is_set():
                            self._work.wait(IDLE_SECONDS)
            except Exception as error:  # the top of this thread, which must live as long as the process
                if is_outage(error):
                    logger.debug("Redis is unavailable (%s)", error)
                else:
                    logger.exception("an attempt at a delivery failed")
                self._stopping.wait(1.0)

    def _plan_look(self) -> None:
        """Have a thread woken when the next delivery is due. A thread that has recorded a retry comes here too."""
        asked_at = time.monotonic()
        seconds = min(self._look_seconds, self._through_outage(self._deliveries.seconds_until_due))
        with self._work:
            if asked_at > self._asked_at:
                self._asked_at, self._look_at = asked_at, asked_at + seconds

    def _wake_if_due(self) -> None:
        if time.monotonic() >= self._look_at:
            self._wake_one()

    def _wake_one(self) -> None:
        """Wake one thread, which wakes the next if it finds a delivery."""
        with self._work:
            self._work.notify()


def _attributes_of(delivery: Delivery) -> dict[str, str | int]:
    return {
        "enginehouse.delivery.id": delivery.id,
        "enginehouse.delivery.attempt": delivery.number,
        "enginehouse.event": delivery.event,
        "enginehouse.job.id": delivery.job,
    }


def webhook_body(delivery: Delivery, record: Mapping[str, str]) -> str:
    """The JSON body of a delivery, the same at every attempt."""
    if delivery.event in OPENAI_EVENTS:
        return _json(openai_event(delivery))
    data = job_view(from_record(record))
    body: dict[str, Any] = {
        "type": delivery.event,
        "timestamp": datetime.fromtimestamp(delivery.created_at / 1000, UTC).isoformat(timespec="milliseconds"),
        "data": data,
    }
    text = _json(body)
    if len(text.encode()) > MAX_BODY_BYTES:
        data |= {"result": None, "omitted": ["result", "response", "attempts"]}
        for name in ("response", "attempts"):
            data.pop(name, None)
        text = _json(body)
    return text


def openai_event(delivery: Delivery) -> dict[str, Any]:
    """An event in the form of OpenAI's API, which names the object that the receiver then gets."""
    return {
        "id": f"evt_{delivery.id.partition('_')[2]}",
        "object": "event",
        "created_at": delivery.created_at // 1000,
        "type": delivery.event,
        "data": {"id": f"{ID_PREFIXES[delivery.event.partition('.')[0]]}_{delivery.job.partition('_')[2]}"},
    }


def signed_headers(delivery: str, body: str, secrets: list[str], now: datetime) -> dict[str, str]:
    """The headers of Standard Webhooks 1.0, with one signature for each secret."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "Enginehouse",
        "webhook-id": delivery,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(delivery, now, body) for secret in secrets),
    }


def retry_decision(reply: Reply, failures: int) -> tuple[DeliveryOutcome, float]:
    """The outcome of an attempt after ``failures`` failed ones, and the seconds until the next attempt."""
    if reply.status is not None and 200 <= reply.status < 300:
        return "delivered", 0
    if reply.status == 410:
        return "gone", 0
    if failures >= len(RETRY_SECONDS):
        return "exhausted", 0
    delay = RETRY_SECONDS[failures] * random.uniform(1 - JITTER, 1 + JITTER)
    # A receiver may ask for a longer pause (up to the sender's limit), not for a shorter one.
    return "retry", max(delay, reply.retry_after)


def _status_error(reply: Reply) -> str:
    if reply.status is None or 200 <= reply.status < 300:
        return ""
    if 300 <= reply.status < 400:
        return f"answered {reply.status}; redirects are not followed"
    return f"answered {reply.status}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
