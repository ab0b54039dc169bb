"""``enginehouse keys``, ``dead-letters`` and ``status`` on a Redis without a stack."""

import json
import re
from pathlib import Path

import pytest
import redis

from cli.admin.api_keys import create_key, list_keys, revoke_key
from cli.admin.dead_letters import DeadLetters
from cli.admin.status import show_status
from cli.output import Output
from shared.documents.data_state import FolderState, write_folder
from shared.jobs.submission import Submission
from shared.owners.closed_marker import ClosedMarker
from shared.owners.store import ApiKeys
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

TEXT, JSON = Output(as_json=False), Output(as_json=True)


@pytest.fixture
def marker(tmp_path: Path) -> ClosedMarker:
    return ClosedMarker(tmp_path)


def test_the_first_key_says_what_changes(
    redis_client: redis.Redis, marker: ClosedMarker, capsys: pytest.CaptureFixture[str]
) -> None:
    create_key(redis_client, marker, "ada", owner="", admin=False, requests_per_second=None, out=JSON)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["owner"] == "ada"
    assert "from now on, every call needs a key" in shown.err
    assert "belong to owner `local`" in shown.err
    assert "`--owner local`" in shown.err
    create_key(redis_client, marker, "bob", owner="", admin=False, requests_per_second=None, out=TEXT)
    shown = capsys.readouterr()
    assert "for owner bob" in shown.out
    assert shown.err == ""


def test_a_first_key_of_the_local_owner_keeps_its_jobs_visible(
    redis_client: redis.Redis, marker: ClosedMarker, capsys: pytest.CaptureFixture[str]
) -> None:
    create_key(redis_client, marker, "laptop", owner="local", admin=False, requests_per_second=None, out=TEXT)
    shown = capsys.readouterr().err
    assert "every call needs a key" in shown
    assert "belong to owner" not in shown


def test_keys_are_lines_in_a_pipe_and_json_on_request(redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    key, secret = ApiKeys(redis_client).create("laptop", owner="ada", admin=True)
    list_keys(redis_client, out=TEXT)
    header, line = capsys.readouterr().out.splitlines()
    assert header.split("\t")[:7] == ["key", "name", "owner", "scopes", "state", "last used", "expires"]
    assert line.split("\t")[:7] == [key.id, "laptop", "ada", "all", "active", "", ""]
    assert line.endswith(f"\t{key.prefix}")
    list_keys(redis_client, out=JSON)
    shown = capsys.readouterr().out
    assert [one["id"] for one in json.loads(shown)] == [key.id]
    assert secret not in shown


def test_revoking_says_when_it_changes_nothing_and_when_no_key_is_left(
    redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ApiKeys(redis_client)
    first, last = keys.create("first")[0].id, keys.create("last")[0].id
    revoke_key(redis_client, first)
    shown = capsys.readouterr().out
    assert "(first) is revoked" in shown
    assert "No active key" not in shown
    revoke_key(redis_client, first)
    assert "(first) was already revoked" in capsys.readouterr().out
    revoke_key(redis_client, last)
    shown = capsys.readouterr().out
    assert "No active key is left. The server stays closed" in shown
    assert "`enginehouse keys create --name NAME`" in shown


def test_dead_letters_are_lines_in_a_pipe(system: JobSystem, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="ada")).id
    for attempt in range(system.settings.max_attempts):
        assert system.transitions.claim("q", "gpu0@host/1", f"token{attempt}") is not None
        system.maintenance.mark_worker_dead("gpu0@host/1")
        clock.advance(60)
        system.maintenance.reap()
    letters = DeadLetters(system.client, system.settings)
    letters.print_all(TEXT)
    _, line = capsys.readouterr().out.splitlines()
    fields = line.split("\t")
    assert (fields[:3], fields[4]) == ([job, "generate", "ada"], str(system.settings.max_attempts))
    letters.print_all(JSON)
    assert [letter["id"] for letter in json.loads(capsys.readouterr().out)] == [job]
    letters.print_one(job, TEXT)
    shown = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert (shown["job"], shown["owner"], shown["queue"]) == (job, "ada", "q")
    assert shown["failed"] == fields[3]
    assert re.fullmatch(r"gpu0@host/1, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d: lost .*", shown["attempt 1"])
    assert not any("_" in name for name in shown)
    letters.print_one(job, JSON)
    assert json.loads(capsys.readouterr().out)["id"] == job


def test_the_status_reports_that_redis_lost_its_records(
    redis_client: redis.Redis, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(settings.data_dir, FolderState(id="of the folder", changes=3))
    assert not show_status(settings, explicit=True, out=JSON)
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem == "Redis has lost the records of documents: run `enginehouse collections recover`."
