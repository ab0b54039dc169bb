"""Event publisher: one write for the events of all attempts, through outages and refusals."""

import threading

import pytest
import redis

from shared.jobs.transitions import Event
from tests.unit.runtime_fakes import RecordingTransitions
from workers.runtime import event_publisher
from workers.runtime.event_buffer import EventBuffer
from workers.runtime.event_publisher import EventPublisher


def texts(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.job, event.data["text"]) for event in events]


def test_buffers_of_several_attempts_are_written_together() -> None:
    transitions = RecordingTransitions()
    publisher = EventPublisher(transitions)
    for number in (1, 2):
        buffer = EventBuffer((f"job_{number}", 1))
        buffer.add_delta({"text": f"text {number}"})
        publisher.enqueue_buffer(buffer)
    publisher.publish_queued()
    assert sorted(texts(transitions.written)) == [("job_1", "text 1"), ("job_2", "text 2")]
    publisher.publish_queued()
    assert len(transitions.written) == 2, "a written event is not written again"


def test_events_are_kept_through_an_outage_with_their_index() -> None:
    transitions = RecordingTransitions()
    transitions.outages["append_events"] = 2
    publisher = EventPublisher(transitions)
    buffer = EventBuffer(("job_1", 1))
    buffer.add_delta({"text": "before"})
    publisher.enqueue_buffer(buffer)
    publisher.publish_queued()
    buffer.add_delta({"text": "during"})
    publisher.publish_queued()
    assert transitions.written == []
    publisher.publish_queued()
    assert [(event.index, event.data["text"]) for event in transitions.written] == [(1, "before"), (2, "during")]


def test_a_refused_event_is_reported_and_dropped() -> None:
    transitions = RecordingTransitions()
    transitions.refused_leases.add(("job_1", 1))
    refused = []
    buffer, healthy = EventBuffer(("job_1", 1), lambda: refused.append("job_1")), EventBuffer(("job_2", 1))
    publisher = EventPublisher(transitions)
    for each in (buffer, healthy):
        each.add_delta({"text": "x"})
        publisher.enqueue_buffer(each)
    publisher.publish_queued()
    assert refused == ["job_1"]
    assert buffer.unwritten() == []
    assert texts(transitions.written) == [("job_2", "x")]


def test_finish_stream_writes_what_is_left_and_passes_on_the_newest_delta() -> None:
    transitions = RecordingTransitions()
    publisher = EventPublisher(transitions)
    buffer = EventBuffer(("job_1", 1))
    buffer.set_progress("generating", 1, 2, "tokens")
    buffer.add_delta({"text": "the end"})
    last = publisher.finish_stream(buffer, lambda event: event)
    assert [event.type for event in transitions.written] == ["progress"]
    assert last is not None
    assert (last.index, last.data) == (2, {"text": "the end"})


def test_finish_stream_does_not_finish_when_events_could_not_be_written() -> None:
    transitions = RecordingTransitions()
    transitions.outages["append_events"] = 1
    publisher = EventPublisher(transitions)
    buffer = EventBuffer(("job_1", 1))
    buffer.set_progress("parsing", 1, 2, "pages")
    finished = []
    with pytest.raises(redis.ConnectionError):
        publisher.finish_stream(buffer, finished.append)
    assert finished == []
    publisher.finish_stream(buffer, finished.append)
    assert finished == [None]
    assert [event.index for event in transitions.written] == [1]


def test_the_thread_publishes_what_is_enqueued_and_stops() -> None:
    transitions = RecordingTransitions()
    publisher = EventPublisher(transitions)
    stopping, written = threading.Event(), threading.Event()
    append = transitions.append_events

    def append_and_note(events: list[Event]) -> list[str]:
        answers = append(events)
        written.set()
        return answers

    transitions.append_events = append_and_note
    thread = threading.Thread(target=publisher.publish_until, args=(stopping,))
    thread.start()
    buffer = EventBuffer(("job_1", 1))
    buffer.add_delta({"text": "x"})
    publisher.enqueue_buffer(buffer)
    assert written.wait(60)
    stopping.set()
    publisher.wake_up()
    thread.join(60)
    assert not thread.is_alive()
    assert texts(transitions.written) == [("job_1", "x")]


def test_first_text_does_not_wait_for_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_publisher, "GATHER_SECONDS", 3600.0)
    transitions = RecordingTransitions()
    publisher = EventPublisher(transitions)
    stopping, written = threading.Event(), threading.Semaphore(0)
    append = transitions.append_events

    def append_and_note(events: list[Event]) -> list[str]:
        answers = append(events)
        written.release()
        return answers

    transitions.append_events = append_and_note
    thread = threading.Thread(target=publisher.publish_until, args=(stopping,))
    thread.start()
    older, newer = (EventBuffer((f"job_{number}", 1)) for number in (1, 2))
    older.add_delta({"text": "first"})
    publisher.enqueue_buffer(older)
    assert written.acquire(timeout=60)
    older.set_progress("generating", 1, 2, "tokens")
    publisher.enqueue_buffer(older)
    assert written.acquire(timeout=60), "a batch after a pause"
    older.add_delta({"text": "second"})
    publisher.enqueue_buffer(older)
    newer.add_delta({"text": "first"})
    publisher.enqueue_buffer(newer)
    assert written.acquire(timeout=60)
    stopping.set()
    publisher.wake_up()
    thread.join(60)
    assert not thread.is_alive()
    assert [event.job for event in transitions.written] == ["job_1", "job_1", "job_2"]
    assert not newer.has_first_delta


def test_text_does_not_wait_until_the_end_of_another_job_is_written() -> None:
    transitions = RecordingTransitions()
    publisher = EventPublisher(transitions)
    ending, other = EventBuffer(("job_1", 1)), EventBuffer(("job_2", 1))
    finishing, may_finish = threading.Event(), threading.Event()

    def finish(last: Event | None) -> str:
        finishing.set()
        assert may_finish.wait(60)
        return "ok"

    ending.add_delta({"text": "last"})
    thread = threading.Thread(target=publisher.finish_stream, args=(ending, finish))
    thread.start()
    assert finishing.wait(60)
    for buffer in (ending, other):
        buffer.add_delta({"text": "next"})
        publisher.enqueue_buffer(buffer)
    publisher.publish_queued()
    assert texts(transitions.written) == [("job_2", "next")], "nothing overtakes the end of job_1"
    may_finish.set()
    thread.join(60)
    assert not thread.is_alive()


def test_nothing_is_written_after_the_end_of_a_job() -> None:
    transitions = RecordingTransitions()
    publisher = EventPublisher(transitions)
    buffer = EventBuffer(("job_1", 1))
    buffer.add_delta({"text": "last"})
    publisher.enqueue_buffer(buffer)
    assert publisher.finish_stream(buffer, lambda last: last and last.data) == {"text": "last"}
    publisher.publish_queued()
    assert transitions.written == []
    assert buffer.unwritten() == []
