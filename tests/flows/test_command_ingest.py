"""``enginehouse ingest``: every file has its end, a run that was broken off goes on, and scripts are told by the status."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.flows.command import run, seen, start
from tests.flows.stack import Stack
from tests.odd_files import packed_zip
from tests.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    (folder / "deep").mkdir(parents=True)
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"Paper {number} is about the number {number}.")
    (folder / "deep" / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    (folder / "empty.txt").write_text("")
    return folder


def ends(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, bool]]:
    told = [json.loads(end) for end in done.stdout.splitlines()]
    assert len({end["file"] for end in told}) == len(told)
    return {end["file"]: (end["status"], end["known"]) for end in told}


def test_every_file_has_an_end_and_a_reason(stack: Stack, folder: Path) -> None:
    done = run(stack, "ingest", folder, "-c", "papers", "--json")
    assert done.returncode == 3, "two cannot be searched"
    told = ends(done)
    assert len(told) == 14
    assert {file for file, end in told.items() if end == ("ready", False)} == {f"{number}.txt" for number in range(12)}
    assert (told["deep/broken.pdf"], told["empty.txt"]) == (("failed", False), ("empty", False))
    assert "It could not be read" in done.stderr
    assert "14 files" in done.stderr
    assert stack.client.get("/collections/papers").json()["documents"] == 14

    again = run(stack, "ingest", folder, "-c", "papers", "--json")
    assert set(ends(again).values()) == {("ready", True), ("empty", True), ("failed", False)}
    # What failed may not fail again; what is empty will be, and is sent only when asked for.
    assert stack.client.get("/collections/papers").json()["documents"] == 15
    assert ends(run(stack, "ingest", folder, "-c", "papers", "--json", "--again"))["empty.txt"] == ("empty", False)

    only = run(stack, "ingest", folder, "-c", "papers", "--include", "*.txt", "--exclude", "empty*")
    assert (only.returncode, only.stdout) == (0, "")
    assert "ready, there already" in only.stderr


def test_each_member_of_an_archive_has_an_end(stack: Stack, folder: Path) -> None:
    members = {"in.txt": b"Within.", "deep/in.pdf": b"%PDF-1.7\nnothing more", "../up.txt": b"No.", "twin.txt": b"Within."}
    (folder / "letters.zip").write_bytes(packed_zip(members))
    (folder / "spoilt.zip").write_bytes(packed_zip({"x.txt": b"text"})[:-40])
    (folder / "none.zip").write_bytes(packed_zip({"folder/": b""}))
    zips = [folder / name for name in ("letters.zip", "spoilt.zip", "none.zip")]
    done = run(stack, "ingest", *zips, "-c", "archives", "--json")
    assert done.returncode == 3
    assert ends(done) == {
        "letters.zip: in.txt": ("ready", False),
        "letters.zip: deep/in.pdf": ("failed", False),
        "letters.zip: ../up.txt": ("left out", False),
        "letters.zip: twin.txt": ("ready", True),
        "spoilt.zip": ("failed", False),
        "none.zip": ("empty", False),
    }
    for reason in ("It could not be read", "climbs out", "could not be unpacked", "no files"):
        assert reason in done.stderr
    assert "ready, there already" in done.stderr

    (folder / "good.zip").write_bytes(packed_zip({"good.txt": b"Good."}))
    for known in (False, True):
        done = run(stack, "ingest", folder / "good.zip", "-c", "archives", "--json")
        assert (done.returncode, ends(done)) == (0, {"good.zip: good.txt": ("ready", known)})


def test_files_are_named_by_pipe_too(stack: Stack, folder: Path) -> None:
    listed = f"{folder / '1.txt'}\n{folder / 'deep'}\n"
    done = run(stack, "ingest", "-", "-c", "piped", "--json", given=listed)
    assert ends(done) == {"1.txt": ("ready", False), "broken.pdf": ("failed", False)}
    assert run(stack, "ingest", folder / "no", "-c", "piped").returncode == 2
    assert run(stack, "ingest", folder, "-c", "piped", "--include", "*.none").returncode == 2


def test_a_person_sees_bars_and_a_closing_table(stack: Stack, folder: Path) -> None:
    shown = seen(stack, "ingest", folder, "-c", "seen", "--jobs", "2")
    assert "all files" in shown
    assert "14/14" in shown
    assert "7.txt" in shown, "each file under way has a bar"
    closing = shown[shown.rindex("14/14") :]
    assert "deep/broken.pdf" in closing
    assert "ready" in closing


def test_an_unreadable_file_is_told_and_the_others_go_on(stack: Stack, folder: Path) -> None:
    (folder / "dangling.txt").symlink_to(folder / "gone.txt")
    os.mkfifo(folder / "pipe")
    done = run(stack, "ingest", folder / "1.txt", folder / "2.txt", "-c", "odd", "--json")
    assert done.returncode == 0
    vanishing = folder / "vanishing.txt"
    vanishing.write_text("soon gone")
    vanishing.chmod(0)
    if os.geteuid() != 0:  # root reads everything
        done = run(stack, "ingest", vanishing, folder / "3.txt", "-c", "odd", "--json")
        assert ends(done) == {"vanishing.txt": ("not sent", False), "3.txt": ("ready", False)}


def test_a_run_that_was_broken_off_is_taken_up(stack: Stack, tmp_path: Path) -> None:
    for number in range(120):
        (tmp_path / f"{number:03}.txt").write_text(f"Broken off at {number}?")
    process = start("ingest", tmp_path, "-c", "resumed", "--json", "--url", stack.url)
    assert process.stdout is not None
    before = [json.loads(process.stdout.readline())["file"] for _ in range(10)]
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Run it again" in said
    before += [json.loads(end)["file"] for end in rest.splitlines()]
    assert len(before) < 120

    done = run(stack, "ingest", tmp_path, "-c", "resumed", "--json")
    assert done.returncode == 0
    told = ends(done)
    assert len(told) == 120
    assert all(told[file] == ("ready", True) for file in before), "what was read is not sent again"
    assert stack.client.get("/collections/resumed").json()["documents"] == 120


def test_an_ingest_outlives_the_servers_that_it_calls(stack: Stack, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:03}.txt").write_text(f"Killed at {number}?")
    process = start("ingest", tmp_path, "-c", "survived", "--json", "--url", stack.url)
    assert process.stdout is not None
    process.stdout.readline()
    for server in psutil.Process(stack.pid("api")).children(recursive=True):
        server.kill()
    rest, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(rest.splitlines()) == 59
    wait_until(lambda: stack.client.get("/health/ready").status_code == 200, "ready", seconds=30)
    assert stack.client.get("/collections/survived").json()["documents"] == 60
