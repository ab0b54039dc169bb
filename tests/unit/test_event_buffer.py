"""Event buffer: numbering, merging and repeated writes of one attempt's events."""

from dataclasses import replace

import pytest

from tests.unit.runtime_fakes import ManualClock, queued_job
from workers.runtime.attempt import Attempt
from workers.runtime.event_buffer import EventBuffer

LEASE = ("job_1", 2)


def test_text_between_two_writes_becomes_one_delta() -> None:
    buffer = EventBuffer(LEASE)
    for piece in ("the ", "quick ", "fox"):
        buffer.add_delta({"text": piece})
    [event] = buffer.unwritten()
    assert (event.job, event.attempt, event.index, event.type) == ("job_1", 2, 1, "delta")
    assert event.data == {"text": "the quick fox"}


def test_of_progress_only_the_newest_is_kept() -> None:
    buffer = EventBuffer(LEASE)
    for done in (1, 2, 3):
        buffer.set_progress("parsing", done, 9, "pages")
    [event] = buffer.unwritten()
    assert (event.type, event.phase) == ("progress", "parsing")
    assert event.data == {"phase": "parsing", "done": 3, "total": 9, "unit": "pages"}


def test_progress_is_numbered_before_text() -> None:
    buffer = EventBuffer(LEASE)
    buffer.add_delta({"text": "a"})
    buffer.set_progress("generating", 0, 0, "tokens")
    assert [(event.index, event.type) for event in buffer.unwritten()] == [(1, "progress"), (2, "delta")]


def test_an_unwritten_event_keeps_its_index_and_later_text_gets_a_new_one() -> None:
    buffer = EventBuffer(LEASE)
    buffer.add_delta({"text": "a"})
    first = buffer.unwritten()
    buffer.add_delta({"text": "b"})
    again = buffer.unwritten()
    assert again[0] == first[0]
    assert [(event.index, event.data["text"]) for event in again] == [(1, "a"), (2, "b")]


def test_written_events_are_dropped_and_numbers_go_on() -> None:
    buffer = EventBuffer(LEASE)
    buffer.add_delta({"text": "a"})
    buffer.unwritten()
    buffer.add_delta({"text": "b"})
    buffer.unwritten()
    buffer.drop_through(1)
    assert [event.index for event in buffer.unwritten()] == [2]
    buffer.drop_through(2)
    assert buffer.unwritten() == []
    buffer.add_delta({"text": "c"})
    assert [event.index for event in buffer.unwritten()] == [3]


@pytest.mark.parametrize(("line_of", "published"), [("", 5), ("job_batch", 1)], ids=["job", "request of a batch"])
def test_deltas_that_nobody_follows_are_published_seldom(line_of: str, published: int) -> None:
    clock = ManualClock()
    calls: list[EventBuffer] = []
    attempt = Attempt(replace(queued_job(1), line_of=line_of), calls.append, clock)
    for number in range(5):
        clock.sleep(0.5)
        attempt.send_delta({"text": f"piece {number} "}, "tokens")
    assert len(calls) == published
    [event] = attempt.events.unwritten()
    assert event.data["text"] == "piece 0 piece 1 piece 2 piece 3 piece 4 ", "the end of the attempt writes the rest"
