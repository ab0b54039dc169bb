"""Celery and kombu internals that this server relies on: the pinned versions, and every attribute that is patched or private.

A new version of either is safe to pin once these tests and tests/redis pass with it.
"""

import inspect
import json
import threading
import time
import tomllib
from concurrent.futures import Future
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, bootsteps, signals
from celery.app.amqp import AMQP
from celery.app.events import Events
from celery.concurrency.thread import ApplyResult, TaskPool
from celery.events.dispatcher import EventDispatcher
from celery.worker import state as worker_state
from celery.worker.consumer import tasks as consumer_tasks
from kombu.asynchronous import Hub
from kombu.transport import memory, virtual
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import Transport as RedisTransport

from shared.jobs.celery_broker import RUN_NEXT_JOB, UnackedMessage, UnackedQueues, WaitingTransport, celery_app
from shared.settings import Settings
from testing.repository import REPOSITORY
from testing.waiting import wait_until
from workers.runtime.celery_events import BatchedEvents, BatchingDispatcher
from workers.runtime.celery_worker import FreeSlotNotice, StopSignals


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


@pytest.fixture
def app() -> Celery:
    return celery_app(Settings(), events="workers.runtime.celery_events:BatchedEvents")


@pytest.mark.parametrize("package", ["celery", "kombu"])
def test_versions_are_pinned_exactly_and_installed(package: str) -> None:
    dependencies = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = [line.partition("==")[2] for line in dependencies if line.partition("==")[0].partition("[")[0] == package]
    assert pins == [version(package)]


def test_the_app_takes_its_classes_for_events_and_queues(app: Celery) -> None:
    assert {"events", "amqp"} <= parameters(Celery.__init__)
    assert isinstance(app.events, BatchedEvents)
    assert isinstance(app.amqp, UnackedQueues)


def test_the_event_dispatcher_can_be_batched(app: Celery) -> None:
    assert "buffer_limit" in parameters(EventDispatcher.__init__)
    assert Events.dispatcher_cls == "celery.events.dispatcher:EventDispatcher"
    assert app.events.dispatcher_cls == "workers.runtime.celery_events:BatchingDispatcher"
    with app.connection_for_write("memory://") as connection:
        dispatcher = app.events.Dispatcher(connection, enabled=False, buffer_group={"task"})
        assert isinstance(dispatcher, BatchingDispatcher)
        assert dispatcher.buffer_limit == 10_000
        assert dispatcher.buffer_group == {"task"}
        assert dispatcher.on_send_buffered is None
        assert dispatcher._closed is False
    for name in ("enable", "close", "flush"):
        assert callable(getattr(EventDispatcher, name))


def test_a_buffered_event_calls_the_hook_and_waits_for_a_flush(app: Celery) -> None:
    with app.connection_for_write("memory://") as connection:
        dispatcher = EventDispatcher(connection, app=app, buffer_group={"task"}, buffer_limit=10)
        calls: list[str] = []
        dispatcher.on_send_buffered = lambda: calls.append("buffered")
        dispatcher.send("task-received", uuid="1")
        assert calls == ["buffered"]
        dispatcher.flush()
        dispatcher.close()
        assert dispatcher._closed is True


def test_queues_are_consumed_without_acknowledgement(app: Celery) -> None:
    assert {"channel", "queues", "accept"} <= parameters(AMQP.TaskConsumer)
    with app.connection_for_read("memory://") as connection:
        consumer = app.amqp.TaskConsumer(connection.default_channel)
        assert consumer.no_ack is True
        assert consumer.channel.Message is UnackedMessage


def test_blocking_reads_take_their_time_from_the_transport() -> None:
    assert WaitingTransport.brpop_timeout > RedisTransport.brpop_timeout
    assert "self.connection.brpop_timeout" in inspect.getsource(RedisChannel)


def test_no_timer_of_the_transport_wakes_an_idle_loop_each_second(app: Celery) -> None:
    hub, now = Hub(), time.monotonic()
    with app.connection_for_read() as connection:
        connection.transport.register_with_event_loop(SimpleNamespace(client=connection), hub)
    due = [scheduled.eta - now for scheduled in hub.timer.queue if not scheduled.entry.canceled]
    hub.close()
    assert len(due) == 5
    assert min(due) >= app.conf.broker_transport_options["health_check_interval"]


def test_a_message_is_acknowledged_by_its_state_alone() -> None:
    assert RedisChannel.Message is not None, "the channel has its message class in an attribute"
    assert issubclass(UnackedMessage, virtual.Message)
    assert callable(memory.Channel._get)
    message = UnackedMessage({"body": "", "properties": {"delivery_tag": "1"}}, channel=None)
    assert message._state == "RECEIVED"
    message.ack()
    assert message._state == "ACK"
    assert message.acknowledged


def test_a_queue_can_be_added_to_those_that_a_worker_consumes(app: Celery) -> None:
    app.amqp.queues.select(["first"])
    app.amqp.queues.select_add("canary.worker")
    assert set(app.amqp.queues.consume_from) == {"first", "canary.worker"}


def test_the_worker_stops_when_its_state_says_so() -> None:
    assert worker_state.should_stop is None
    assert callable(worker_state.maybe_shutdown)
    assert "should_stop" in inspect.getsource(worker_state.maybe_shutdown)


def test_boot_steps_are_added_to_worker_and_consumer(app: Celery) -> None:
    for blueprint, step in (("worker", StopSignals), ("consumer", FreeSlotNotice)):
        assert issubclass(step, bootsteps.StartStopStep)
        app.steps[blueprint].add(step)
        assert step in app.steps[blueprint]
    assert app.steps == {"worker": {StopSignals}, "consumer": {FreeSlotNotice}}
    [required] = FreeSlotNotice.requires
    assert required == f"{consumer_tasks.__name__}:{consumer_tasks.Tasks.__name__}"


def test_a_pool_of_threads_returns_the_future_of_a_task_and_other_threads_can_turn_the_loop() -> None:
    assert {"target", "callback", "accept_callback"} <= parameters(TaskPool.on_apply)
    assert isinstance(ApplyResult(Future()).f, Future)

    def turns_at_once() -> bool:
        hub, turned = Hub(), threading.Event()
        loop = hub.create_loop()
        next(loop)
        started = time.monotonic()
        threading.Timer(0.05, lambda: hub.call_soon(turned.set)).start()
        while not turned.is_set():
            next(loop)
        hub.close()
        return time.monotonic() - started < 0.9

    wait_until(turns_at_once, "the loop turns before the second is over that it waits without a wake-up")


def test_a_channel_knows_the_connection_of_its_blocking_read() -> None:
    assert RedisChannel._in_poll is False
    assert "self._in_poll = self.client.connection" in inspect.getsource(RedisChannel._brpop_start)
    assert "if self._in_poll:" in inspect.getsource(RedisChannel.close)


def test_the_signals_of_a_worker_exist() -> None:
    for name in (
        "celeryd_after_setup",
        "setup_logging",
        "worker_process_init",
        "worker_process_shutdown",
        "worker_shutdown",
        "worker_shutting_down",
    ):
        assert callable(getattr(signals, name).connect)


def test_the_settings_that_keep_messages_out_of_doubt_are_known_to_celery(app: Celery) -> None:
    assert app.conf.worker_disable_prefetch is True
    assert app.conf.task_acks_late is False
    assert app.conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert app.conf.worker_proc_alive_timeout == 4.0


def test_a_published_message_has_the_parts_that_a_wakeup_copies() -> None:
    app = Celery("pattern", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection:
        app.send_task(RUN_NEXT_JOB, args=["q"], queue="internals", ignore_result=True, connection=connection)
        message = connection.default_channel._get("internals")
    assert {"body", "headers", "properties", "content-type", "content-encoding"} <= set(message)
    assert {"id", "root_id", "task"} <= set(message["headers"])
    assert {"correlation_id", "delivery_tag"} <= set(message["properties"])
    json.dumps(message)
