"""Watched folders: what is new, changed or removed since the files were sent, also by an earlier run."""

import os
from pathlib import Path
from threading import Event, Timer

import pytest

from cli.remote.bulk_ingest.folder_watch import Changes, FolderState, WatchedFolder, find_changes, state_path, wait_for_events
from cli.remote.bulk_ingest.uploader import FileOutcome

LATER = 10_000_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "watched"
    place.mkdir()
    for name in ("a.txt", "b.txt"):
        (place / name).write_text(name)
    return place


def changes(state: FolderState, folder: Path, now: float = LATER) -> Changes:
    return find_changes(state, WatchedFolder(folder).list_files(), now=now)


def record(state: FolderState, folder: Path, name: str, document: str | None, status: str = "ready") -> None:
    [(file, version)] = [found for found in WatchedFolder(folder).list_files() if found[0].name == name]
    state.record(file, version, [FileOutcome(name, status, "", document)])


def names(found: Changes) -> list[str]:
    return [file.name for file, _ in found.files]


def test_a_file_is_sent_once_and_again_when_it_changes(folder: Path, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.json")
    assert names(changes(state, folder)) == ["a.txt", "b.txt"]
    record(state, folder, "a.txt", "doc_a")
    record(state, folder, "b.txt", "doc_b")
    assert names(changes(state, folder)) == []
    (folder / "b.txt").write_text("other text")
    assert names(changes(state, folder)) == ["b.txt"]


def test_a_file_that_may_still_be_written_waits(folder: Path, tmp_path: Path) -> None:
    os.utime(folder / "a.txt", (1000, 1000))
    os.utime(folder / "b.txt", (2000, 2000))
    found = changes(FolderState(tmp_path / "state.json"), folder, now=2001)
    assert (names(found), found.unsettled) == (["a.txt"], True)
    later = changes(FolderState(tmp_path / "state.json"), folder, now=2003)
    assert (names(later), later.unsettled) == (["a.txt", "b.txt"], False)


def test_another_run_knows_what_was_sent_and_what_was_removed_meanwhile(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    state = FolderState(path)
    record(state, folder, "a.txt", "doc_a")
    record(state, folder, "b.txt", "doc_b")
    (folder / "a.txt").unlink()
    again = FolderState(path)
    again.forget_unknown(["doc_a", "doc_b"])
    found = changes(again, folder)
    assert (names(found), found.removed) == ([], ["a.txt"])
    assert again.forget("a.txt") == "doc_a"
    assert again.files.keys() == {"b.txt"}


def test_what_the_server_lost_or_could_not_read_is_sent_again(folder: Path, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.json")
    record(state, folder, "a.txt", "doc_gone")
    record(state, folder, "b.txt", "doc_b", status="failed")
    state.forget_unknown(["doc_b"])
    assert names(changes(state, folder)) == ["a.txt", "b.txt"]


def test_the_state_file_does_not_grow_with_the_changes_of_one_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for _ in range(5):
        state = FolderState(path)
        state.forget_unknown(["doc_1"])
        for _ in range(20):
            record(state, folder, "a.txt", "doc_1")
    lines = [line for line in path.read_text().splitlines() if line]
    assert len(lines) == 1 + 20, "the file, and its changes in the last run"
    assert names(changes(FolderState(path), folder)) == ["b.txt"]


def test_a_document_of_two_files_stays_while_one_of_them_is_there(folder: Path, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.json")
    record(state, folder, "a.txt", "doc_same")
    record(state, folder, "b.txt", "doc_same")
    assert state.forget("a.txt") is None
    assert state.forget("b.txt") == "doc_same"


def test_nothing_is_removed_when_the_folder_is_missing_or_empty(folder: Path, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.json")
    record(state, folder, "a.txt", "doc_a")
    record(state, folder, "b.txt", "doc_b")
    for name in ("a.txt", "b.txt"):
        (folder / name).unlink()
    assert changes(state, folder).removed == []
    folder.rmdir()
    assert changes(state, folder).removed == []


@pytest.mark.parametrize("content", ["", "[]", '["a.txt", 1]', '["a.txt", {"size": 1}]', "nothing", '["a.txt", {"si'])
def test_a_damaged_state_file_is_like_a_missing_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    assert FolderState(path).files == {}


def test_each_server_collection_and_folder_has_its_own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    paths = {state_path(*identity) for identity in (("a", "b"), ("a", "c"), ("b", "b"))}
    assert len(paths) == 3
    assert all(path.is_relative_to(tmp_path) for path in paths)


def test_an_event_wakes_the_watch_and_a_stop_ends_it(folder: Path) -> None:
    stop = Event()
    events = wait_for_events(folder, stop)
    writer = Timer(0.3, lambda: (folder / "new.txt").write_text("new"))
    writer.start()
    next(events)
    assert (folder / "new.txt").exists()
    stop.set()
    assert list(events) == []
