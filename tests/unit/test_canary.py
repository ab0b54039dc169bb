"""Canary: when it is sent, and when a worker counts as wedged."""

from workers.runtime.canary import Canary

INTERVAL = 10.0


def test_a_canary_is_sent_once_an_interval() -> None:
    canary = Canary(INTERVAL, 0.0)
    assert canary.next_action(9.9, all_slots_busy=False) == "wait"
    assert canary.next_action(10.0, all_slots_busy=False) == "send"
    canary.note_sent(10.0)
    assert canary.next_action(19.9, all_slots_busy=False) == "wait"
    assert canary.next_action(20.0, all_slots_busy=False) == "send"


def test_a_worker_that_answers_none_for_three_intervals_is_wedged() -> None:
    canary = Canary(INTERVAL, 0.0)
    for now in (10.0, 20.0, 30.0):
        assert canary.next_action(now, all_slots_busy=False) == "send"
        canary.note_sent(now)
    assert canary.next_action(40.0, all_slots_busy=False) == "wedged"
    assert canary.silent_seconds(40.0) == 40.0


def test_an_answer_shows_that_the_worker_lives() -> None:
    canary = Canary(INTERVAL, 0.0)
    canary.note_answer(35.0)
    assert canary.next_action(40.0, all_slots_busy=False) == "send"


def test_a_worker_without_a_free_slot_is_not_wedged() -> None:
    canary = Canary(INTERVAL, 0.0)
    assert canary.next_action(100.0, all_slots_busy=True) == "send"
    canary.note_sent(100.0)
    assert canary.next_action(120.0, all_slots_busy=False) == "send"
    canary.note_sent(120.0)
    assert canary.next_action(130.1, all_slots_busy=False) == "wedged"


def test_silence_during_an_outage_of_the_broker_counts_as_nothing() -> None:
    canary = Canary(INTERVAL, 0.0)
    canary.note_failure(100.0)
    assert canary.next_action(110.0, all_slots_busy=False) == "send"
