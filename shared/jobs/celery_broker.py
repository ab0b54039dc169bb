"""Tickets: Celery messages that say "there is work on queue Q" and nothing more.

Which job a worker gets is decided by ``claim``; so a ticket that is lost, doubled or late does no harm, and prompts never
reach the broker. This is the one file of ``shared`` that knows Celery. The settings below held under every fault that was
tried (docs/decisions/wakeups.md).
"""

import json
import uuid
from typing import Any

import redis
from celery import Celery
from celery.app.amqp import AMQP
from kombu.transport.virtual import Message

from shared.settings import Settings

RUN_NEXT_JOB = "enginehouse.run_next_job"
CANARY = "enginehouse.canary"

IO_QUEUE = "io"
CPU_QUEUE = "cpu"


def generation_queue(model: str) -> str:
    """The queue of generation jobs for one model."""
    return f"gpu.{model}"


def canary_queue(worker: str) -> str:
    """The queue that only this Celery worker reads; taking its ticket in time is the worker's proof of life."""
    return f"canary.{worker}"


class UnackedMessage(Message):
    """A message that was noted nowhere when it was taken, so that there is nothing to cross out."""

    def ack(self, multiple: bool = False) -> None:
        self._state = "ACK"


class UnackedQueues(AMQP):  # type: ignore[misc]
    """How a worker reads tickets: off the list and noted nowhere, as one that is lost is issued again.

    Noting a ticket and crossing it out would be two more round trips to Redis, a third of what a worker's main thread does,
    and what Celery brings back from its notes after a while is a ticket too many.
    """

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **options: Any) -> Any:
        consumer = super().TaskConsumer(channel, queues, accept, no_ack=True, **options)
        # `no_ack` alone is not enough: Celery acknowledges all the same, and this transport asks Redis to forget it then.
        consumer.channel.Message = UnackedMessage
        return consumer


def celery_app(settings: Settings, *, events: str | None = None) -> Celery:
    """A Celery app without acknowledgement, results and prefetch: nothing of ours rests on the broker."""
    app = Celery("enginehouse", broker=settings.redis_url, events=events, amqp=UnackedQueues)
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
            # Tickets are alike, so each queue is one list; Celery would ask for four with every read.
            "priority_steps": [0],
        },
    )
    return app


class CeleryBroker:
    """Issues tickets from any thread or process, many in one command.

    Celery's own publishing costs twenty times as much. Its message is taken as a pattern once, from Celery itself, and
    each ticket is a copy with ids of its own; a test has a real worker read them.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._patterns: dict[tuple[str, str], dict[str, Any]] = {}

    def wake(self, queue: str, count: int = 1) -> None:
        """Put ``count`` tickets on a queue. Raises RedisError when Redis is away; the janitor will then issue them."""
        self._client.lpush(queue, *(self._copy(RUN_NEXT_JOB, queue, [queue]) for _ in range(count)))

    def send_canary(self, worker: str) -> None:
        """Send a Celery worker its canary, unless the last one still waits."""
        queue = canary_queue(worker)
        if not self._client.llen(queue):
            self._client.lpush(queue, self._copy(CANARY, queue, []))

    def _copy(self, task: str, queue: str, arguments: list[str]) -> str:
        pattern = self._patterns.get((task, queue))
        if pattern is None:
            pattern = self._patterns[task, queue] = _message(task, queue, arguments)
        identity = str(uuid.uuid4())
        return json.dumps(
            pattern
            | {
                "headers": pattern["headers"] | {"id": identity, "root_id": identity},
                "properties": pattern["properties"] | {"correlation_id": identity, "delivery_tag": str(uuid.uuid4())},
            }
        )


def _message(task: str, queue: str, arguments: list[str]) -> dict[str, Any]:
    """What Celery puts on a queue for this task, taken from its transport in memory (the form is that of all its transports)."""
    app = Celery("pattern", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection:
        app.send_task(task, args=arguments, queue=queue, ignore_result=True, connection=connection)
        message: dict[str, Any] = connection.default_channel._get(queue)
    return message
