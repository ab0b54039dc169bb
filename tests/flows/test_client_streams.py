"""The client's streams when servers die under them: no token is missing, none comes twice."""

import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

from enginehouse_client import Client, Event, Timeout
from testing.fault_rig.processes import has_word
from testing.stack import Stack
from testing.waiting import LONG_SECONDS, wait_until
from tests.flows.test_client import either

TEXT = "a text long enough for two servers to die while it is sent, also on a busy machine, where many tokens come at once"


@pytest.fixture(params=["blocking", "asynchronous"])
def client(request: pytest.FixtureRequest, slow_stack: Stack) -> Iterator[Client]:
    yield from either(request.param, slow_stack.url)


def servers(stack: Stack) -> list[psutil.Process]:
    """gunicorn's workers, which answer."""
    return psutil.Process(stack.pid("api")).children(recursive=True)


def kill_while_reading(client: Client, job: str, kill: list[Callable[[], None]]) -> list[Event]:
    """Read a job's stream to its end, and kill as often as there is something to kill, each time after some more pieces."""
    events: list[Event] = []
    pieces = 0
    for event in client.stream(job):
        events.append(event)
        pieces += event.type == "delta"
        if kill and pieces >= 5:
            kill.pop(0)()
            pieces = 0
    assert not kill, "the stream was long enough"
    return events


def test_killed_servers_lose_and_double_no_token(client: Client, slow_stack: Stack) -> None:
    def kill() -> None:
        for process in servers(slow_stack):
            process.kill()

    job = client.generate(TEXT, max_tokens=200)
    events = kill_while_reading(client, job.id, [kill, kill])
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.text for event in events) == TEXT == client.get(job).text


def test_a_killed_engine_is_continued_without_a_gap(client: Client, slow_stack: Stack) -> None:
    def kill() -> None:
        for process in psutil.Process(slow_stack.pid("gpu0")).children(recursive=True):
            if has_word(process, "workers.gpu.engine"):
                process.kill()

    job = client.generate(TEXT, max_tokens=200)
    events = kill_while_reading(client, job.id, [kill])
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert {event.attempt for event in events} == {0, 1, 2}
    assert "restart" not in [event.type for event in events]
    assert "".join(event.text for event in events) == TEXT == client.get(job).text


def test_a_job_that_does_not_end_in_time_is_a_timeout_and_goes_on(client: Client) -> None:
    job = client.generate(TEXT, max_tokens=200)
    with pytest.raises(Timeout, match=f"{job.id} has not ended within 0.1 s"):
        client.wait(job, timeout=0.1)
    assert client.wait(job, timeout=LONG_SECONDS).text == TEXT


def test_a_wait_outlives_the_servers_that_hold_it(client: Client, slow_stack: Stack) -> None:
    job = client.generate(TEXT, max_tokens=200)
    ended: list[str] = []
    waiter = threading.Thread(target=lambda: ended.append(client.wait(job, timeout=LONG_SECONDS).text))
    waiter.start()
    wait_until(lambda: slow_stack.job(job.id)["timings"]["first_token"], "the first token")
    for process in servers(slow_stack):
        process.kill()
    waiter.join(LONG_SECONDS)
    assert ended == [TEXT]
