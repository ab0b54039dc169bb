"""KV-cache aware admission: never more than the cache can hold, shared prefixes one after the other, no starvation."""

from workers.gpu.engine.admission_queue import MAX_OVERTAKES, AdmissionQueue

PAGE = 4


def queue(max_requests: int = 100, pages: int = 10) -> AdmissionQueue:
    return AdmissionQueue(max_requests, pages, lambda length: (-(-length // PAGE),), (1,), PAGE)


def test_requests_are_admitted_until_the_cache_could_not_hold_them_to_their_end() -> None:
    admission = queue()
    for number in range(4):
        admission.enqueue(str(number), [number], 16)
    assert admission.admit() == ["0", "1"]
    assert admission.reserved_fraction == 0.8
    admission.remove_request("0")
    assert admission.admit() == ["2"]
    assert len(admission) == 1


def test_the_number_of_admitted_requests_is_limited() -> None:
    admission = queue(max_requests=2)
    for number in range(3):
        admission.enqueue(str(number), [number], 1)
    assert admission.admit() == ["0", "1"]
    admission.remove_request("1")
    assert admission.admit() == ["2"]


def test_short_requests_overtake_a_long_one_only_a_limited_number_of_times() -> None:
    admission = queue(max_requests=10_000)
    admission.enqueue("held", [1], 4)
    assert admission.admit() == ["held"]
    admission.enqueue("long", [1], 40)
    overtakes = 0
    for number in range(MAX_OVERTAKES + 10):
        admission.enqueue(str(number), [1], 4)
        admitted = admission.admit()
        overtakes += len(admitted)
        for id in admitted:
            admission.remove_request(id)
    assert overtakes == MAX_OVERTAKES
    admission.remove_request("held")
    assert admission.admit()[0] == "long"


def test_a_shared_prefix_is_computed_once_and_then_its_requests_come_first() -> None:
    admission = queue(pages=100)
    admission.enqueue("first", [1, 2, 3, 4, 5], 8)
    admission.enqueue("shared", [1, 2, 3, 4, 6], 8)
    admission.enqueue("other", [9, 2, 3, 4, 5], 8)
    admission.enqueue("also shared", [1, 2, 3, 4, 7], 8)
    assert admission.admit() == ["first", "other"]
    admission.enqueue("late", [1], 8)
    admission.prefill_done("first")
    assert admission.admit() == ["shared", "late"]
    admission.prefill_done("shared")
    assert admission.admit() == ["also shared"]


def test_a_request_removed_before_its_prefill_releases_its_prefix() -> None:
    admission = queue()
    admission.enqueue("first", [1, 2, 3, 4, 5], 8)
    admission.enqueue("shared", [1, 2, 3, 4, 6], 8)
    assert admission.admit() == ["first"]
    admission.remove_request("first")
    assert admission.admit() == ["shared"]


def test_a_waiting_request_can_be_removed() -> None:
    admission = queue(max_requests=1)
    admission.enqueue("admitted", [1], 4)
    admission.enqueue("waiting", [1], 4)
    assert admission.admit() == ["admitted"]
    admission.remove_request("waiting")
    admission.remove_request("admitted")
    assert admission.admit() == []
    assert admission.reserved_fraction == 0
