"""Outages of Redis: which errors are one, and retries of calls through it."""

import logging

import pytest
import redis

from shared.redis_connection import is_outage, outage_message
from tests.unit.runtime_fakes import ManualClock
from workers.runtime.outage import OutageLog, retry_through_outage

LOGGER = logging.getLogger("test.outage")


def failing(times: int, error: Exception) -> tuple[list[int], object]:
    calls: list[int] = []

    def call() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error
        return "done"

    return calls, call


def test_a_call_is_repeated_until_redis_answers() -> None:
    clock = ManualClock()
    calls, call = failing(3, redis.TimeoutError("late"))
    assert retry_through_outage(call, OutageLog(LOGGER, "test"), sleep=clock.sleep) == "done"
    assert len(calls) == 4


def test_an_outage_has_two_lines_in_the_log_however_long_it_is(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    outage = OutageLog(LOGGER, "queue pages", clock=clock)
    outage.note_success()
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            outage.note_failure(redis.ConnectionError("refused"), "its jobs wait")
            clock.sleep(0.5)
        outage.note_success()
        outage.note_success()
    assert caplog.messages == [
        "queue pages: Redis is unavailable (refused); its jobs wait",
        "queue pages: Redis is back after 50 s",
    ]


def test_a_call_that_began_before_a_failure_does_not_end_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    outage = OutageLog(LOGGER, "queue pages", clock=clock)
    started = clock()
    clock.sleep(1)
    outage.note_failure(redis.ConnectionError("refused"), "its jobs wait")
    with caplog.at_level(logging.INFO):
        outage.note_success(started)
        assert not [message for message in caplog.messages if "back" in message]
        outage.note_success(clock())
    assert caplog.messages[-1] == "queue pages: Redis is back after 0 s"


def test_an_error_that_is_no_outage_is_raised_at_once() -> None:
    clock = ManualClock()
    calls, call = failing(1, ValueError("bug"))
    with pytest.raises(ValueError, match="bug"):
        retry_through_outage(call, OutageLog(LOGGER, "test"), sleep=clock.sleep)
    assert len(calls) == 1


def test_an_outage_is_raised_once_the_sleep_was_interrupted() -> None:
    calls, call = failing(9, redis.ConnectionError("refused"))
    with pytest.raises(redis.ConnectionError):
        retry_through_outage(call, OutageLog(LOGGER, "test"), sleep=lambda seconds: True)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("refused"),
        redis.ReadOnlyError("You can't write against a read only replica."),
        redis.exceptions.MasterDownError("Link with MASTER is down"),
        redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk."),
        redis.ResponseError("BUSY Redis is busy running a script."),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
    ids=str,
)
def test_an_error_that_may_pass_is_an_outage(error: redis.RedisError) -> None:
    assert is_outage(error)


@pytest.mark.parametrize("message", ["WRONGTYPE Operation against a key", "BUSYGROUP Consumer Group name already exists"])
def test_a_wrong_command_is_not_an_outage(message: str) -> None:
    assert not is_outage(redis.ResponseError(message))


def test_a_full_redis_is_not_called_silent() -> None:
    full = redis.ResponseError("MISCONF Errors writing to the AOF file: No space left on device")
    assert outage_message(full).startswith("Redis rejects writes (MISCONF")
    assert outage_message(redis.OutOfMemoryError("command not allowed")).startswith("Redis rejects writes")
    assert outage_message(redis.ConnectionError("refused")) == "Redis does not answer (refused)."
