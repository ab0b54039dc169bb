"""Tickets: Celery messages that say "there is work on queue Q" and nothing more.

Which job a worker gets is decided by ``claim``; so a ticket that is lost, doubled or late does no harm, and prompts never
reach the broker. This is the one file of ``shared`` that knows Celery. The settings below held under every fault that was
tried (docs/decisions/tickets.md).
"""

from celery import Celery
from celery.result import AsyncResult

from shared.settings import Settings

TICKET = "enginehouse.ticket"
CANARY = "enginehouse.canary"

IO_QUEUE = "io"
CPU_QUEUE = "cpu"


def generation_queue(model: str) -> str:
    """The queue of generation jobs for one model."""
    return f"gpu.{model}"


def canary_queue(worker: str) -> str:
    """The queue that only this Celery worker reads; taking its ticket in time is the worker's proof of life."""
    return f"canary.{worker}"


def celery_app(settings: Settings, name: str = "enginehouse") -> Celery:
    """A Celery app with early acknowledgement, no results and no prefetch: nothing of ours rests on the broker."""
    app = Celery(name, broker=settings.redis_url)
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
            "visibility_timeout": 60,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "priority_steps": list(range(10)),
        },
    )
    return app


class Tickets:
    """Issues tickets from any thread or process."""

    def __init__(self, settings: Settings) -> None:
        self._app = celery_app(settings)

    def issue(self, queue: str, count: int = 1) -> None:
        """Put ``count`` tickets on a queue. Raises when the broker is away; the janitor will then issue them."""
        with self._app.producer_pool.acquire(block=True, timeout=10) as producer:
            for _ in range(count):
                self._send(TICKET, queue, producer, [queue])

    def issue_canary(self, worker: str) -> None:
        """Send a Celery worker its canary; it is worthless, and dropped, after a minute."""
        with self._app.producer_pool.acquire(block=True, timeout=10) as producer:
            self._send(CANARY, canary_queue(worker), producer, [], expires=60)

    def _send(self, task: str, queue: str, producer: object, arguments: list[str], **options: int) -> AsyncResult:
        return self._app.send_task(
            task,
            args=arguments,
            queue=queue,
            ignore_result=True,
            retry=False,
            producer=producer,
            **options,
        )
