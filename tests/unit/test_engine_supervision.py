"""What a worker decides about its engine: how many requests it may hold, whether it hangs, what its last words mean."""

import pytest

from shared.errors import ModelUnavailable
from workers.gpu.engine.memory import cache_fraction, is_out_of_memory
from workers.gpu.engine.messages import GenerationRequest, Heartbeat, State, StepOutput
from workers.gpu.engine_client.engine_connection import Watchdog
from workers.gpu.engine_client.in_flight_requests import InFlightRequests


def filled(count: int, most: int = 8) -> InFlightRequests:
    """With requests ``r0``, ``r1`` … of which as many as may are in flight."""
    admission = InFlightRequests(most, quiet_seconds=600.0)
    for number in range(count):
        admission.add(GenerationRequest(f"r{number}", [number], 10, []))
    admission.admit()
    return admission


def ids(requests: list[GenerationRequest]) -> list[str]:
    return [request.id for request in requests]


def test_no_more_requests_are_in_flight_than_the_limit_and_the_oldest_go_first() -> None:
    admission = InFlightRequests(2)
    for number in range(4):
        admission.add(GenerationRequest(f"r{number}", [1], 5, []))
    assert ids(admission.admit()) == ["r0", "r1"]
    assert admission.admit() == []
    admission.take(StepOutput([], [("r0", "stop", "")]))
    assert ids(admission.admit()) == ["r2"]
    assert "r0" not in admission
    assert "r3" in admission


def test_after_want_of_memory_half_go_on_where_they_were_and_the_others_wait_before_the_rest() -> None:
    admission = filled(9)
    admission.take(StepOutput([("r3", [50, 51])], []))
    assert admission.out_of_memory("too little", now=0.0) == []
    assert admission.limit == 4
    admitted = admission.admit()
    assert ids(admitted) == ["r0", "r1", "r2", "r3"]
    assert (admitted[3].prompt, admitted[3].max_new_tokens) == ([3, 50, 51], 8)
    admission.take(StepOutput([("r3", [52])], [("r0", "stop", ""), ("r1", "stop", ""), ("r2", "stop", "")]))
    assert ids(admission.admit()) == ["r4", "r5", "r6"]
    assert admission.out_of_memory("too little", now=1.0) == []
    assert admission.admit()[0] == GenerationRequest("r3", [3, 50, 51, 52], 7, [])


def test_half_is_of_those_in_flight_and_never_less_than_one() -> None:
    for in_flight, limit in ((8, 4), (3, 1), (2, 1), (1, 1), (0, 4)):
        admission = filled(in_flight)
        admission.out_of_memory("too little", now=0.0)
        assert admission.limit == limit


def test_a_request_that_was_alone_ends_and_those_that_wait_stay() -> None:
    admission = filled(3, most=1)
    assert admission.out_of_memory("too little", now=0.0) == [("r0", "out_of_memory", "too little")]
    assert ids(admission.admit()) == ["r1"]


def test_a_cancelled_request_does_not_go_on_in_the_next_process() -> None:
    admission = filled(4, most=4)
    assert not admission.cancel("r1")
    assert admission.is_cancelled("r1")
    assert admission.out_of_memory("too little", now=0.0) == [("r1", "cancelled", "")]
    assert admission.cancel("r3")
    assert "r3" not in admission


def test_a_crash_loses_what_was_in_flight_and_not_what_waited() -> None:
    admission = filled(3, most=2)
    assert admission.lose("gone") == [("r0", "lost", "gone"), ("r1", "lost", "gone")]
    assert ids(admission.admit()) == ["r2"]
    assert admission.limit == 2
    admission.add(GenerationRequest("r3", [1], 5, []))
    admission.add(GenerationRequest("r4", [1], 5, []))
    assert [id for id, _, _ in admission.lose_all("gone")] == ["r2", "r3", "r4"]


def test_the_limit_doubles_after_a_quiet_time_when_nothing_would_be_disturbed() -> None:
    admission = filled(8)
    admission.out_of_memory("too little", now=100.0)
    assert "4 of 8" in admission.note
    admission.admit()
    assert not admission.may_grow(now=10_000.0)
    admission.lose_all("")
    assert not admission.may_grow(now=699.0)
    assert admission.may_grow(now=700.0)
    admission.grow(now=700.0)
    assert admission.limit == 8
    assert admission.note == ""
    assert not admission.may_grow(now=10_000.0)


def beat(steps: int) -> Heartbeat:
    return Heartbeat(steps=steps, tokens=0, running=1, waiting=0, cache_use=0.0)


def watchdog() -> Watchdog:
    watching = Watchdog(0.0)
    watching.saw(State("ready"), holding=False, now=0.0)
    return watching


def test_silence_counts_from_the_last_message_of_any_kind() -> None:
    watching = watchdog()
    watching.saw(beat(1), holding=False, now=5.0)
    watching.saw(None, holding=False, now=9.0)
    assert watching.hanging(9.0) == (4.0, "gave no sign of life")


def test_beats_without_a_step_count_as_hanging_only_while_requests_are_held() -> None:
    watching = watchdog()
    for second in range(1, 11):
        watching.saw(beat(7), holding=second > 4, now=float(second))
    assert watching.hanging(10.0) == (6.0, "held requests and made no step")
    watching.saw(StepOutput([], []), holding=True, now=11.0)
    assert watching.hanging(11.0)[0] == 0.0


def test_steps_that_give_no_tokens_are_steps_all_the_same() -> None:
    watching = watchdog()
    for second in range(1, 11):
        watching.saw(beat(second), holding=True, now=float(second))
    assert watching.hanging(10.0)[0] == 0.0


def test_loading_may_take_as_long_as_it_says_that_it_goes_on() -> None:
    watching = Watchdog(0.0)
    for second in range(1, 100):
        watching.saw(beat(0), holding=False, now=float(second))
    assert watching.hanging(99.0)[0] == 0.0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16777216 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_want_of_memory_is_known_from_its_words(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = ValueError("the loop has died")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


def test_other_faults_are_not_taken_for_want_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("a prompt about being out of memory"))
    assert not is_out_of_memory(None)


def test_an_engine_that_shares_its_gpu_takes_a_cache_that_keeps_all_of_it_within_its_part() -> None:
    total, weights, kernels = 80, 15, 1
    part = cache_fraction(0.5, total, weights, kernels)
    assert part * (total - weights) + weights + kernels == pytest.approx(0.5 * total)
    assert cache_fraction(1.0, total, 0, 0) == 0.9
    with pytest.raises(ModelUnavailable, match=r"gpu_share 0\.2 of .* leaves nothing for the cache"):
        cache_fraction(0.2, total, weights, kernels)
