"""Requests in flight and waiting: the limit, cancels, lost processes, and requests that continue after out of memory."""

from workers.gpu.engine.messages import GenerationRequest, StepOutput
from workers.gpu.engine_client.in_flight_requests import InFlightRequests


def filled(count: int, limit: int = 8) -> InFlightRequests:
    """Requests ``r0``, ``r1`` … of which the limit is in flight."""
    requests = InFlightRequests(limit)
    for number in range(count):
        requests.enqueue(GenerationRequest(f"r{number}", [number], 10, []))
    requests.admit()
    return requests


def ids(requests: list[GenerationRequest]) -> list[str]:
    return [request.id for request in requests]


def test_the_limit_is_kept_and_the_oldest_go_first() -> None:
    requests = InFlightRequests(2)
    for number in range(4):
        requests.enqueue(GenerationRequest(f"r{number}", [1], 5, []))
    assert ids(requests.admit()) == ["r0", "r1"]
    assert requests.admit() == []
    requests.record_step(StepOutput([], [("r0", "stop", "")]))
    assert ids(requests.admit()) == ["r2"]
    assert "r0" not in requests
    assert "r3" in requests


def test_requests_continue_where_they_were_after_out_of_memory() -> None:
    requests = filled(9)
    requests.record_step(StepOutput([("r3", [50, 51])], [], prompt_logprobs=[("r2", [(5, -1.0, [])])]))
    assert requests.requeue_after_out_of_memory("too little") == []
    requests.limit = 4
    admitted = requests.admit()
    assert ids(admitted) == ["r0", "r1", "r2", "r3"]
    assert (admitted[3].prompt, admitted[3].max_new_tokens) == ([3, 50, 51], 8)
    assert [(request.generated_tokens, request.scored_tokens) for request in admitted[2:]] == [(0, 1), (2, 0)]
    finished = [(f"r{number}", "stop", "") for number in range(3)]
    requests.record_step(StepOutput([("r3", [52])], finished))  # type: ignore[arg-type]
    assert ids(requests.admit()) == ["r4", "r5", "r6"]
    assert requests.requeue_after_out_of_memory("too little") == []
    assert requests.admit()[0] == GenerationRequest("r3", [3, 50, 51, 52], 7, [], generated_tokens=3)


def test_a_request_that_ran_alone_ends_out_of_memory_and_waiting_ones_stay() -> None:
    requests = filled(3, limit=1)
    assert requests.requeue_after_out_of_memory("too little") == [("r0", "out_of_memory", "too little")]
    assert ids(requests.admit()) == ["r1"]


def test_a_cancelled_request_does_not_continue_in_the_next_process() -> None:
    requests = filled(4, limit=4)
    assert not requests.cancel("r1")
    assert requests.is_cancelled("r1")
    assert requests.requeue_after_out_of_memory("too little") == [("r1", "cancelled", "")]
    assert requests.cancel("r3")
    assert "r3" not in requests


def test_a_crash_loses_what_was_in_flight_and_keeps_what_waited() -> None:
    requests = filled(3, limit=2)
    assert requests.lose_in_flight("gone") == [("r0", "lost", "gone"), ("r1", "lost", "gone")]
    assert ids(requests.admit()) == ["r2"]
    requests.enqueue(GenerationRequest("r3", [1], 5, []))
    assert [id for id, _, _ in requests.lose_all("gone")] == ["r2", "r3"]
    assert requests.is_empty
