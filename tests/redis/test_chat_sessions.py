"""Chat sessions on the scripts: branches, turns that did not complete, lists and search, deletion, limits, sessions of earlier versions."""

import json
from dataclasses import replace
from typing import Any, Literal

import pytest
import redis

from shared.errors import Conflict, InvalidValue, NotFound, TooMany
from shared.ids import new_id
from shared.jobs.models import Status
from shared.jobs.submission import FIRST_TURN, Submission
from shared.jobs.transitions import Event
from shared.sessions import listing
from shared.sessions.listing import SessionList
from shared.sessions.store import RESTORE_SECONDS, SessionFull, Sessions
from tests.conftest import JobSystem

OWNER = "ada"
Ended = Literal[Status.COMPLETED, Status.FAILED, Status.CANCELLED]


class Chats:
    """Sessions with a worker that answers what it is told to."""

    def __init__(self, system: JobSystem) -> None:
        self.system = system
        self.sessions = Sessions(system.client, system.settings, clock=system.clock)
        self.listing = SessionList(system.client, clock=system.clock)

    def ask(self, message: str, session: str = "s", *, owner: str = OWNER, **fields: Any) -> str:
        """Submit a message a second after the one before, and return its turn."""
        assert self.system.clock is not None
        self.system.clock.advance(1)
        self.sessions.open(session, owner)
        submission = Submission(
            kind="generate", queue="q", spec={"message": message}, owner=owner, session=session, model="m", **fields
        )
        return self.system.submitter.submit_job(submission).id

    def claim(self, turn: str) -> int:
        job = self.system.transitions.claim("q", "w", new_id("claim"))
        assert job is not None
        assert job.id == turn
        return job.attempt

    def answer(self, turn: str, text: str = "", **kept: Any) -> None:
        text = text or f"answer to {turn}"
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": text, "timestamp": "now", **kept}]
        lease = (turn, self.claim(turn))
        result = {"text": text, "finish_reason": "stop", "usage": {}}
        assert self.system.transitions.finish(lease, Status.COMPLETED, result=result, messages=messages) == "ok"

    def write(self, turn: str, *texts: str) -> tuple[str, int]:
        """Claim a turn, write deltas, and return its lease."""
        lease = (turn, self.claim(turn))
        events = [
            Event(job=turn, attempt=lease[1], index=index, type="delta", data={"text": text})
            for index, text in enumerate(texts, 1)
        ]
        assert self.system.transitions.append_events(events) == ["ok"] * len(texts)
        return lease

    def path(self, session: str = "s", **options: Any) -> list[str]:
        return [turn.id for turn in self.sessions.turns(session, OWNER, **options)[1]]

    def history(self, before: str = "") -> list[str]:
        return [message["content"] for message in self.sessions.messages("s", OWNER, before=before)]

    def ids(self, **options: Any) -> list[str]:
        return [session.id for session in self.listing.page(OWNER, **{"limit": 10, **options}).sessions]


@pytest.fixture
def chats(system: JobSystem) -> Chats:
    return Chats(system)


def test_messages_follow_one_another(chats: Chats) -> None:
    first = chats.ask("one")
    second = chats.ask("two")
    chats.answer(first, "1", citations=[], usage={"completion_tokens": 1})
    chats.answer(second, "2")
    session, turns = chats.sessions.turns("s", OWNER)
    assert (session.title, session.turns, session.current) == ("one", 2, second)
    assert [(turn.id, turn.parent, turn.siblings, turn.status) for turn in turns] == [
        (first, "", [first], "completed"),
        (second, first, [second], "completed"),
    ]
    assert turns[0].answer["citations"] == []
    assert turns[0].times["ended_at"] >= turns[0].times["started_at"] > turns[0].times["created_at"] - 1
    assert chats.history() == ["one", "1", "two", "2"]


def test_an_edited_message_is_a_branch_whose_history_is_its_own(chats: Chats) -> None:
    first, second = chats.ask("one"), chats.ask("two")
    chats.answer(first, "1")
    chats.answer(second, "2")
    edited = chats.ask("two, edited", turn_parent=first)
    assert chats.history(edited) == ["one", "1"]
    chats.answer(edited, "2b")
    assert chats.path() == [first, edited]
    assert chats.sessions.turns("s", OWNER)[1][-1].siblings == [second, edited]
    assert chats.path(last=second) == [first, second]
    beginning = chats.ask("anew", turn_parent=FIRST_TURN)
    assert chats.history(beginning) == []
    chats.answer(beginning)
    assert chats.path() == [beginning]
    # The branch of a turn is shown down to the newest turn that follows from it.
    chats.sessions.change_session("s", OWNER, current=first)
    assert chats.path() == [first, edited]
    follower = chats.ask("three")
    assert chats.history(follower) == ["one", "1", "two, edited", "2b"]
    chats.answer(follower)
    with pytest.raises(NotFound, match="no turn 'job_x'"):
        chats.ask("lost", turn_parent="job_x")
    with pytest.raises(NotFound, match="no turn"):
        chats.sessions.change_session("s", OWNER, current="job_x")


def test_a_repeated_job_answers_the_same_message_again(chats: Chats) -> None:
    first = chats.ask("one", turn={"request": {"temperature": 0}})
    second = chats.ask("two")
    chats.answer(first)
    chats.answer(second)
    job = chats.system.queries.get_job(first)
    assert job is not None
    again = chats.system.submitter.replay(job).id
    assert chats.path() == [again]
    [turn] = chats.sessions.turns("s", OWNER)[1]
    assert (turn.message, turn.request, turn.siblings, turn.status) == ("one", {"temperature": 0}, [first, again], "queued")
    chats.answer(again)


def test_turns_that_did_not_complete_keep_what_was_written_and_are_no_part_of_the_history(chats: Chats) -> None:
    stopped = chats.ask("stop me")
    lease = chats.write(stopped, "void")
    restart = Event(job=stopped, attempt=lease[1], index=2, type="restart", data={})
    after = Event(job=stopped, attempt=lease[1], index=3, type="delta", data={"text": "half an "})
    assert chats.system.transitions.append_events([restart, after]) == ["ok", "ok"]
    chats.system.transitions.cancel(stopped, OWNER)
    last = Event(job=stopped, attempt=lease[1], index=4, type="delta", data={"text": "ans\u00e9"})
    assert chats.system.transitions.finish(lease, Status.CANCELLED, last=last) == "ok"

    failed = chats.ask("fail")
    error = {"code": "oom", "message": "Out of memory.", "param": None, "type": "job_error"}
    assert chats.system.transitions.finish(chats.write(failed, "almost"), Status.FAILED, error=error) == "ok"

    unread = chats.ask("never read")
    chats.system.transitions.cancel(unread, OWNER)

    expired = chats.ask("too late", expires_ms=1000)
    assert chats.system.clock is not None
    chats.system.clock.advance(2)
    chats.system.maintenance.reap()

    running = chats.ask("still there?")
    assert chats.history(running) == []
    chats.write(running, "I am")
    turns = chats.sessions.turns("s", OWNER)[1]
    assert [(turn.id, turn.status, turn.answer.get("content")) for turn in turns] == [
        (stopped, "cancelled", "half an ansé"),
        (failed, "failed", "almost"),
        (unread, "cancelled", None),
        (expired, "expired", None),
        (running, "in_progress", None),
    ]
    assert turns[1].error == error


def test_a_turn_whose_workers_died_is_failed_and_the_next_one_runs(chats: Chats) -> None:
    first, second = chats.ask("one"), chats.ask("two")
    assert chats.system.clock is not None
    for _ in range(chats.system.settings.max_attempts):
        chats.write(first, "so far ")
        for seconds in (chats.system.settings.lease_seconds + 1, 60):
            chats.system.clock.advance(seconds)
            chats.system.maintenance.reap()
    [turn, waiting] = chats.sessions.turns("s", OWNER)[1]
    assert turn.status == "failed"
    assert turn.error is not None
    assert turn.error["code"] == "worker_lost"
    assert turn.answer["content"].startswith("so far ")
    assert waiting.status == "queued"
    chats.answer(second)
    chats.system.transitions.remove_dead_letter(first)


def test_sessions_are_listed_by_their_last_turn(chats: Chats) -> None:
    for name in ("a", "b", "c", "d"):
        chats.answer(chats.ask(f"about {name}", name))
    chats.sessions.open("empty", OWNER)
    chats.answer(chats.ask("again", "b"))
    chats.answer(chats.ask("mine", "x", owner="bob"))
    assert chats.ids() == ["b", "d", "c", "a"]
    page = chats.listing.page(OWNER, limit=2)
    assert page.next_cursor is not None
    # Another session moves up while the list is read.
    chats.answer(chats.ask("up", "a"))
    rest = chats.listing.page(OWNER, limit=2, cursor=page.next_cursor)
    assert ([session.id for session in rest.sessions], rest.next_cursor) == (["c"], None)
    chats.sessions.change_session("c", OWNER, title="Renamed")
    assert [session.title for session in chats.listing.page(OWNER, limit=10).sessions] == [
        "about a",
        "about b",
        "about d",
        "Renamed",
    ]
    for cursor in ("x", "1-2", "1" * 30 + "-" + "a" * 40):
        with pytest.raises(InvalidValue, match="cursor"):
            chats.listing.page(OWNER, limit=1, cursor=cursor)


def test_the_search_reads_titles_questions_and_answers_of_a_few_sessions_at_a_time(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats.answer(chats.ask("Where is the Archive?", "a"), "In the cellar.")
    chats.answer(chats.ask("hello", "b"), "Der Süden, ÜBER  allem.")
    chats.answer(chats.ask("hello", "c"), "hi")
    chats.sessions.change_session("c", OWNER, title="Archive plans")
    assert chats.ids(text="archive") == ["c", "a"]
    assert chats.ids(text="über allem") == ["b"]
    assert chats.ids(text="CELLAR") == ["a"]
    assert chats.ids(text="nowhere") == []
    monkeypatch.setattr(listing, "MAX_SEARCHED_SESSIONS", 1)
    first = chats.listing.page(OWNER, limit=10, text="cellar")
    assert (first.sessions, first.next_cursor is None) == ([], False)
    found, cursor = [], first.next_cursor
    while cursor:
        page = chats.listing.page(OWNER, limit=10, cursor=cursor, text="cellar")
        found, cursor = [*found, *(session.id for session in page.sessions)], page.next_cursor
    assert found == ["a"]


def test_a_deleted_session_can_be_restored_for_a_minute(chats: Chats, redis_client: redis.Redis) -> None:
    first = chats.ask("one")
    chats.answer(first, "1")
    running = chats.ask("two")
    lease = chats.write(running, "2")
    chats.sessions.delete_session("s", OWNER)
    assert chats.ids() == []
    for call in (chats.sessions.turns, chats.sessions.messages, chats.sessions.delete_session):
        with pytest.raises(NotFound):
            call("s", OWNER)
    with pytest.raises(NotFound):
        chats.sessions.restore_session("s", "bob")
    # A turn that ends meanwhile is in the restored session, too.
    assert chats.system.transitions.finish(lease, Status.CANCELLED) == "ok"
    chats.sessions.restore_session("s", OWNER)
    assert chats.ids() == ["s"]
    assert [(turn.id, turn.status) for turn in chats.sessions.turns("s", OWNER)[1]] == [
        (first, "completed"),
        (running, "cancelled"),
    ]
    assert chats.system.clock is not None
    chats.system.clock.advance(RESTORE_SECONDS + 1)
    chats.system.maintenance.purge()
    assert chats.system.queries.get_job(first) is not None
    with pytest.raises(Conflict, match="exists"):
        chats.sessions.restore_session("s", OWNER)

    chats.sessions.delete_session("s", OWNER)
    ttls = {key: redis_client.ttl(key) for key in redis_client.scan_iter("eh:session:*:deleted*")}
    assert len(ttls) == 3
    assert max(ttls.values()) <= RESTORE_SECONDS
    # Another session with this id is not the deleted one.
    chats.answer(chats.ask("anew"))
    assert chats.sessions.turns("s", OWNER)[0].turns == 1
    with pytest.raises(Conflict, match="exists"):
        chats.sessions.restore_session("s", OWNER)


def test_the_texts_of_a_deleted_session_are_gone_after_a_minute(chats: Chats, redis_client: redis.Redis) -> None:
    ended, running = chats.ask("my SECRET"), chats.ask("another SECRET")
    chats.answer(ended, "a SECRET, too")
    lease = chats.write(running, "SECRET")
    chats.sessions.delete_session("s", OWNER)
    assert (
        chats.system.transitions.finish(lease, Status.COMPLETED, result={"text": "SECRET", "finish_reason": "stop", "usage": {}})
        == "ok"
    )
    assert chats.system.queries.get_job(running) is not None, "its client may still wait for it"
    assert chats.system.clock is not None
    chats.system.clock.advance(RESTORE_SECONDS + 1)
    chats.system.maintenance.purge()
    # Redis expires keys by its own clock.
    for key in redis_client.scan_iter("eh:session:*:deleted*"):
        redis_client.delete(key)
    for key in redis_client.scan_iter("eh:*"):
        kind = redis_client.type(key)
        assert kind != "hash" or "SECRET" not in str(redis_client.hgetall(key)), key
        assert kind != "string" or "SECRET" not in str(redis_client.get(key)), key
        assert kind != "stream" or "SECRET" not in str(redis_client.xrange(key)), key
    assert redis_client.hget(f"eh:session:{OWNER}:bytes", "total") == "0"
    with pytest.raises(NotFound, match="within the last 60 seconds"):
        chats.sessions.restore_session("s", OWNER)


def test_a_session_accepts_a_limited_number_of_turns_and_bytes(system: JobSystem) -> None:
    low = replace(system.settings, max_session_turns=2, max_session_bytes=2000, max_bytes_per_owner=5000)
    chats = Chats(JobSystem(system.client, low, lambda *_: None, clock=system.clock))
    chats.answer(chats.ask("1"))
    chats.answer(chats.ask("2", turn_parent=FIRST_TURN))
    with pytest.raises(SessionFull, match="limit of 2 turns"):
        chats.ask("3")
    chats.answer(chats.ask("long", "long"), "x" * 2000)
    with pytest.raises(SessionFull, match="limit of 2000 bytes"):
        chats.ask("more", "long")
    # What the sessions hold counts for their owner; it does not after they were deleted.
    for job in system.client.zrange(f"eh:owner:{OWNER}:jobs", 0, -1):
        assert chats.system.transitions.delete(job, OWNER) == "deleted"
    chats.answer(chats.ask("x" * 2300, "third"))
    with pytest.raises(TooMany, match="chats may occupy 5000 bytes"):
        chats.ask("x" * 700, "fourth")
    chats.sessions.delete_session("third", OWNER)
    assert system.clock is not None
    system.clock.advance(RESTORE_SECONDS + 1)
    assert system.maintenance.purge() == 1
    chats.answer(chats.ask("x" * 700, "fourth"))


def test_an_expired_session_leaves_the_list_and_the_count_of_bytes(chats: Chats, redis_client: redis.Redis) -> None:
    chats.answer(chats.ask("old", "old"))
    assert chats.system.clock is not None
    chats.system.clock.advance(60 * 24 * 3600)
    chats.answer(chats.ask("new", "new"))
    before = int(redis_client.hget(f"eh:session:{OWNER}:bytes", "total") or 0)
    chats.system.clock.advance(40 * 24 * 3600)
    assert chats.ids() == ["new"]
    assert 0 < int(redis_client.hget(f"eh:session:{OWNER}:bytes", "total") or 0) < before


def test_a_session_of_an_earlier_version_is_readable_and_goes_on(chats: Chats, redis_client: redis.Redis) -> None:
    chats.sessions.open("s", OWNER)
    [key] = [key for key in redis_client.scan_iter(f"eh:session:{OWNER}:*") if redis_client.type(key) == "hash"]
    redis_client.hdel(key, "id")
    for number in (1, 2):
        for role in ("user", "assistant"):
            message = {"role": role, "content": f"{role} ü{number}", "timestamp": f"at {number}"}
            redis_client.rpush(f"{key}:messages", json.dumps(message, ensure_ascii=False))
    redis_client.expire(f"{key}:messages", 1000)
    messages = chats.sessions.messages("s", OWNER)
    assert messages[0] == {"role": "user", "content": "user ü1", "timestamp": "at 1"}
    assert [message["content"] for message in messages] == ["user ü1", "assistant ü1", "user ü2", "assistant ü2"]
    session, turns = chats.sessions.turns("s", OWNER)
    assert (session.title, [turn.message for turn in turns], turns[1].parent) == ("user ü1", ["user ü1", "user ü2"], turns[0].id)
    edited = chats.ask("instead", turn_parent=turns[0].id)
    assert chats.history(edited) == ["user ü1", "assistant ü1"]
    chats.answer(edited)
    assert chats.sessions.turns("s", OWNER)[1][-1].siblings == [turns[1].id, edited]
    assert chats.ids() == ["s"]
    assert not redis_client.exists(f"{key}:messages")


def test_a_turn_that_an_earlier_version_has_asked_enters_the_session(chats: Chats, redis_client: redis.Redis) -> None:
    turn = chats.ask("old question")
    for part in ("tree", "turns"):
        for key in redis_client.scan_iter(f"eh:session:*:{part}"):
            redis_client.delete(key)
    for key in redis_client.scan_iter(f"eh:session:{OWNER}:*"):
        if redis_client.type(key) == "hash" and redis_client.hexists(key, "current"):
            redis_client.hdel(key, "current")
    assert chats.history(turn) == []
    chats.answer(turn, "1")
    assert chats.path() == [turn]
    assert chats.history() == ["?", "1"]
