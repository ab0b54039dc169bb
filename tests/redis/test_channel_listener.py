"""Channel listener: messages, outages, half-open connections and silence. Completion listener: waits across all of them."""

import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from shared.channel_listener import ChannelListener
from shared.jobs.completion_listener import CompletionListener
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from testing.fault_rig.proxy import Proxy
from testing.waiting import wait_until
from tests.conftest import JobSystem

Log = list[str]


class RecordingListener:
    """A channel listener that logs its calls in order."""

    def __init__(self, url: str, **options: float) -> None:
        self.log: Log = []
        self.fail_next = threading.Event()
        self.listener = ChannelListener(
            url,
            "a channel",
            self._receive,
            on_subscribed=lambda: self.log.append("subscribed"),
            on_lost=lambda: self.log.append("lost"),
            on_silence=lambda: self.log.append("silence"),
            **options,
        )
        self.listener.start_listening()
        wait_until(lambda: "subscribed" in self.log, "the channel is subscribed to")

    def _receive(self, text: str) -> None:
        if self.fail_next.is_set():
            self.fail_next.clear()
            raise ValueError("an invalid message")
        self.log.append(text)


@pytest.fixture
def listen() -> Iterator[Callable[..., RecordingListener]]:
    created: list[RecordingListener] = []

    def create(url: str, **options: float) -> RecordingListener:
        created.append(RecordingListener(url, **options))
        return created[-1]

    yield create
    for listener in created:
        listener.listener.stop_listening()


def subscribers(client: redis.Redis) -> set[str]:
    return {connection["id"] for connection in client.client_list() if int(connection["sub"])}


def pings(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"])


def test_messages_arrive_in_order(redis_url: str, redis_client: redis.Redis, listen: Callable[..., RecordingListener]) -> None:
    recording = listen(redis_url)
    for number in range(50):
        redis_client.publish("a channel", number)
        redis_client.publish("another channel", "not for us")
    wait_until(lambda: len(recording.log) == 51, "all messages have arrived")
    assert recording.log == ["subscribed", *map(str, range(50))]


def test_a_half_open_connection_is_noticed_and_replaced(
    proxied_url: str, proxy: Proxy, redis_client: redis.Redis, listen: Callable[..., RecordingListener]
) -> None:
    recording = listen(proxied_url, ping_seconds=0.3, silence_seconds=60)
    assert proxy.half_open() > 0
    wait_until(lambda: recording.log[-1:] == ["subscribed"] and "lost" in recording.log, "the channel is subscribed to again")
    redis_client.publish("a channel", "after")
    wait_until(lambda: recording.log[-1] == "after", "messages arrive again")
    assert [entry for entry in recording.log if entry != "silence"] == ["subscribed", "lost", "subscribed", "after"]


def test_a_silent_connection_that_answers_pings_is_kept(
    redis_url: str, redis_client: redis.Redis, listen: Callable[..., RecordingListener]
) -> None:
    others = subscribers(redis_client)  # of applications of other tests
    recording = listen(redis_url, ping_seconds=0.1)
    subscribed = subscribers(redis_client) - others
    before = pings(redis_client)
    wait_until(lambda: pings(redis_client) > before + 5, "several pings have been sent")
    assert subscribed
    assert subscribed <= subscribers(redis_client)
    assert "lost" not in recording.log


def test_silence_is_reported_repeatedly(
    redis_url: str, redis_client: redis.Redis, listen: Callable[..., RecordingListener]
) -> None:
    recording = listen(redis_url, silence_seconds=0.05)
    wait_until(lambda: recording.log.count("silence") >= 3, "three silences have been reported")
    redis_client.publish("a channel", "still listening")
    wait_until(lambda: "still listening" in recording.log, "the message has arrived")


def test_a_failing_function_does_not_end_the_listener(
    redis_url: str, redis_client: redis.Redis, listen: Callable[..., RecordingListener]
) -> None:
    recording = listen(redis_url)
    recording.fail_next.set()
    redis_client.publish("a channel", "bad")
    wait_until(lambda: recording.log.count("subscribed") == 2, "the channel is subscribed to again")
    redis_client.publish("a channel", "good")
    wait_until(lambda: recording.log[-1] == "good", "the next message has arrived")
    assert "bad" not in recording.log


def test_a_wait_survives_a_half_open_connection(system: JobSystem, proxied_url: str, proxy: Proxy) -> None:
    job = running_job(system)
    listener = CompletionListener(proxied_url, ping_seconds=0.5)
    ended = listener.expect(job)
    assert proxy.half_open() > 0
    system.transitions.finish((job, 1), Status.COMPLETED, result={"text": ""})
    assert ended.wait(60), "a new connection reports the end of the job"
    listener.forget(job, ended)


def test_a_job_that_ends_wakes_all_threads_that_wait_for_it(system: JobSystem, redis_url: str) -> None:
    job, other = running_job(system), running_job(system)
    listener = CompletionListener(redis_url)
    waits = [listener.expect(job) for _ in range(3)]
    for_other = listener.expect(other)
    system.transitions.finish((job, 1), Status.COMPLETED, result={"text": ""})
    assert all(ended.wait(60) for ended in waits)
    assert not for_other.is_set()


def running_job(system: JobSystem) -> str:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={"prompt": "x"}, owner="local")).id
    claimed = system.transitions.claim("q", "w", job)
    assert claimed is not None
    assert (claimed.id, claimed.attempt) == (job, 1)
    return job
