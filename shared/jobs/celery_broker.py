"""Wake-ups: Celery messages that say "there is work on queue Q" and nothing more.

``claim`` decides which job a worker gets. A wake-up that is lost, duplicated or late therefore does no harm, and prompts never
reach the broker. This is the only file in ``shared`` that uses Celery. docs/decisions/wakeups.md lists the faults under which
the settings below were tested.
"""

import json
import math
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from celery import Celery
from celery.app.amqp import AMQP
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel, Transport
from kombu.transport.virtual import Message

from shared.jobs.queue_names import canary_queue
from shared.settings import Settings

RUN_NEXT_JOB = "enginehouse.run_next_job"
CANARY = "enginehouse.canary"

BINDING_CHECK_SECONDS, UNACKED_RESTORE_SECONDS = 30, 3600
# Two wake-ups within this time mean that more are probably waiting: in a worker with hundreds of jobs, a turn of Celery's event loop waits
# up to tens of milliseconds for the interpreter lock. This many wake-ups at most are read in one turn beside the first.
SUCCESSION_SECONDS, MAX_READ_AT_ONCE = 0.05, 32


class UnackedMessage(Message):
    """A message that was not recorded as unacknowledged when it was read, so acknowledging it sends nothing to Redis."""

    def ack(self, multiple: bool = False) -> None:
        self._state = "ACK"


class WakeupChannel(Channel):
    """Reads wake-ups that come in quick succession in one turn of Celery's event loop, as a turn costs more than the wake-up itself.

    ``count_free_slots`` returns how many more wake-ups the worker may read now. Closes without waiting for the reply to a blocking read, which
    takes up to a second. Maintenance resends a wake-up that is lost that way.
    """

    count_free_slots: Callable[[], int] = lambda: 0
    _in_poll: Any
    _read_at = -math.inf

    def _brpop_read(self, **options: Any) -> Any:
        result = super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        # kombu has just moved the queue of the message to the end of its cycle, which is empty once a drain has cancelled all queues.
        queues = self._queue_cycle.items
        if queues and time.monotonic() - self._read_at < SUCCESSION_SECONDS:
            self._read_waiting(queues[-1])
        self._read_at = time.monotonic()
        return result

    def _read_waiting(self, queue: str) -> None:
        """Read what waits in a queue, as far as slots are free, in one command: at each command this thread gives the interpreter lock away,
        and hundreds of jobs want it. The connection of the blocking read is idle until the next one."""
        count = min(type(self).count_free_slots(), MAX_READ_AT_ONCE)
        if count > 0 and self.qos.can_consume():
            for message in self.client.rpop(queue, count) or ():
                self.connection._deliver(json.loads(message), queue)

    def close(self) -> None:
        if self._in_poll:
            self._in_poll.disconnect()
            self._in_poll = None
        super().close()  # type: ignore[no-untyped-call]


class WaitingTransport(Transport):
    """Connects again after an error reply of Redis, too, and lets an idle event loop sleep for seconds.

    When its disk or memory is full, Redis answers each read from a queue with an error. Celery would take that for a fault of the
    program and end the worker.
    """

    Channel = WakeupChannel
    # How long a read waits for a message; by default it is sent again every second. A message ends it at once.
    brpop_timeout = 5
    connection_errors = (*Transport.connection_errors, redis.ResponseError)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]
        # kombu looks each second whether bindings are due, which is once a minute at most.
        cycle: Any = self.cycle
        cycle._binding_expiry_tref.cancel()
        cycle._binding_expiry_tref = loop.call_repeatedly(BINDING_CHECK_SECONDS, cycle.maybe_refresh_binding_expiry)


for alias in ("redis", "rediss"):
    TRANSPORT_ALIASES[alias] = f"{__name__}:{WaitingTransport.__name__}"


class UnackedQueues(AMQP):  # type: ignore[misc]
    """Consumes wake-ups without acknowledgements, because maintenance replaces a lost wake-up.

    Acknowledgements would add two round trips to Redis per wake-up, a third of the work of a worker's main thread, and the
    messages that Celery redelivers after a timeout would be superfluous.
    """

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **options: Any) -> Any:
        consumer = super().TaskConsumer(channel, queues, accept, no_ack=True, **options)
        # `no_ack` alone is not enough: Celery still acknowledges the message, and this transport then sends a command to Redis.
        consumer.channel.Message = UnackedMessage
        return consumer


def broker_url(redis_url: str) -> str:
    """Celery's broker URL for the Redis that a redis-py URL names."""
    parts = urlsplit(redis_url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        query = urlencode({"virtual_host": options.get("db", "0")})
        return f"redis+socket://{parts.netloc}{parts.path}?{query}"
    if parts.scheme == "rediss":
        # Without an option for TLS, kombu would send plain text. As for redis-py, the certificate is checked unless the URL says otherwise.
        level = options.get("ssl_cert_reqs", "required").upper().removeprefix("CERT_")
        return urlunsplit(parts._replace(query=urlencode({**options, "ssl_cert_reqs": f"CERT_{level}"})))
    return redis_url


def celery_app(settings: Settings, *, events: str | None = None) -> Celery:
    """Create a Celery app without acknowledgements, results or prefetch. No state depends on the broker."""
    app = Celery("enginehouse", broker=broker_url(settings.redis_url), events=events, amqp=UnackedQueues)
    app.conf.update(
        task_acks_late=False,
        task_ignore_result=True,
        task_reject_on_worker_lost=False,
        task_store_errors_even_if_ignored=False,
        task_create_missing_queues=True,
        task_default_queue="enginehouse",
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
            # All wake-ups have the same priority, so each queue is one list. By default Celery would read four.
            "priority_steps": [0],
            # No message is ever unacknowledged, so there is none to restore.
            "unacked_restore_interval": UNACKED_RESTORE_SECONDS,
        },
    )
    return app


class CeleryBroker:
    """Sends wake-ups from any thread or process, many in one command.

    Publishing through Celery costs twenty times as much. Celery creates one message per queue, which serves as a template;
    each wake-up is a copy of it with its own ids. A test lets a real Celery worker read them.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._templates: dict[tuple[str, str], dict[str, Any]] = {}

    def prepare(self) -> None:
        """Import what Celery needs for its first message. Otherwise the first requests, all at once, wait for that."""
        _message(RUN_NEXT_JOB, "any", [])

    def wake(self, queue: str, count: int = 1) -> None:
        """Send ``count`` wake-ups to a queue. Raises RedisError if Redis is unreachable; maintenance then sends them later."""
        self._client.lpush(queue, *(self._copy(RUN_NEXT_JOB, queue, [queue]) for _ in range(count)))

    def send_canary(self, worker: str) -> None:
        """Send a canary message to a Celery worker unless the previous one is still in its queue."""
        queue = canary_queue(worker)
        if not self._client.llen(queue):
            self._client.lpush(queue, self._copy(CANARY, queue, []))

    def _copy(self, task: str, queue: str, arguments: list[str]) -> str:
        template = self._templates.get((task, queue))
        if template is None:
            template = self._templates[task, queue] = _message(task, queue, arguments)
        task_id = str(uuid.uuid4())
        return json.dumps(
            template
            | {
                "headers": template["headers"] | {"id": task_id, "root_id": task_id},
                "properties": template["properties"] | {"correlation_id": task_id, "delivery_tag": str(uuid.uuid4())},
            }
        )


def _message(task: str, queue: str, arguments: list[str]) -> dict[str, Any]:
    """The message that Celery puts on a queue for this task. It comes from the in-memory transport, but all transports use this format."""
    app = Celery("template", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection:
        app.send_task(task, args=arguments, queue=queue, ignore_result=True, connection=connection)
        message: dict[str, Any] = connection.default_channel._get(queue)
    return message
