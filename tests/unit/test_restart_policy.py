"""Restart policy of an engine process: back-off, giving up, and fewer requests in flight."""

import pytest

from workers.gpu.engine_client.restart_policy import ProcessExit, Restart, RestartPolicy

OUT_OF_MEMORY = ProcessExit("out of memory", "out_of_memory", served_seconds=5.0)


def delays(policy: RestartPolicy, exit: ProcessExit, count: int) -> list[float]:
    return [policy.decide(exit, in_flight=0, now=0.0).delay_seconds for _ in range(count)]


def test_the_delay_after_crashes_doubles_up_to_a_maximum() -> None:
    policy = RestartPolicy(8)
    crash = ProcessExit("killed by signal 9", served_seconds=1.0)
    assert delays(policy, crash, 8) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_the_delay_starts_again_after_a_long_run() -> None:
    policy = RestartPolicy(8)
    delays(policy, ProcessExit("crash", served_seconds=1.0), 5)
    assert delays(policy, ProcessExit("crash", served_seconds=31.0), 1) == [0.5]


def test_a_model_that_cannot_be_loaded_is_given_up_at_once_and_tried_again_later() -> None:
    policy = RestartPolicy(8)
    unloadable = ProcessExit("no such folder", "unloadable")
    assert policy.decide(unloadable, in_flight=0, now=0.0) == Restart(30.0, give_up=True)
    assert delays(policy, unloadable, 6) == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


def test_three_crashes_while_loading_give_up() -> None:
    policy = RestartPolicy(8)
    killed = ProcessExit("killed by signal 9")
    assert [policy.decide(killed, in_flight=0, now=0.0).give_up for _ in range(4)] == [False, False, True, True]


def test_a_process_that_was_ready_resets_the_count_of_crashes_while_loading() -> None:
    policy = RestartPolicy(8)
    killed = ProcessExit("killed by signal 9")
    delays(policy, killed, 2)
    delays(policy, ProcessExit("crash", served_seconds=1.0), 1)
    assert not policy.decide(killed, in_flight=0, now=0.0).give_up


@pytest.mark.parametrize(("in_flight", "limit"), [(8, 4), (3, 1), (2, 1), (1, 1), (0, 4)])
def test_out_of_memory_halves_what_was_in_flight_but_keeps_one(in_flight: int, limit: int) -> None:
    policy = RestartPolicy(8)
    assert policy.decide(OUT_OF_MEMORY, in_flight=in_flight, now=0.0) == Restart(0.5)
    assert policy.limit == limit
    assert policy.note == f"runs {limit} of 8 requests at once, because it ran out of memory with more"


def test_the_limit_doubles_after_a_quiet_time_up_to_the_maximum() -> None:
    policy = RestartPolicy(8, quiet_seconds=600.0)
    assert policy.larger_limit(now=10_000.0) is None
    policy.decide(OUT_OF_MEMORY, in_flight=4, now=100.0)
    assert policy.limit == 2
    assert policy.larger_limit(now=699.0) is None
    assert policy.larger_limit(now=700.0) == 4
    policy.raise_limit(4, now=700.0)
    assert policy.larger_limit(now=1299.0) is None
    policy.raise_limit(8, now=1300.0)
    assert (policy.limit, policy.note) == (8, "")
    assert policy.larger_limit(now=10_000.0) is None


def test_a_resize_restarts_without_delay() -> None:
    assert RestartPolicy(8).decide(ProcessExit("", "resize", 700.0), in_flight=0, now=0.0) == Restart(0.0)
