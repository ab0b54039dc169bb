"""``enginehouse ingest``: every file is reported, interrupted runs resume, and the exit status shows failures."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.command import ends, run, run_on_terminal, start
from tests.odd_files import packed_zip

# Enough for a test to interrupt the command before it has sent them all.
FILES = 60
NONE = {"total": 0, "completed": 0, "failed": 0, "cancelled": 0, "expired": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    (folder / "deep").mkdir(parents=True)
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"Paper {number} is about the number {number}.")
    (folder / "deep" / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    (folder / "empty.txt").write_text("")
    return folder


def batch_of(said: str) -> str:
    """The id of the batch, printed first on standard error."""
    found = re.match(r"Batch (job_\w+) counts", said)
    assert found, said
    return found[1]


def counted(stack: Stack, said: str) -> dict[str, int]:
    """The counts of the batch once it has ended."""
    return dict(stack.ended(batch_of(said))["counts"])


def test_files_are_sent_at_once_and_indexed_at_their_time(stack: Stack, folder: Path) -> None:
    options = ("--not-before", "3600", "--concurrency-key", "night", "--concurrency-limit", "2", "--json")
    sent = run(stack, "ingest", str(folder), "https://example.org/a.txt", "--collection", "later", *options)
    assert sent.returncode == 0, sent.stderr
    assert {status for status, _ in ends(sent).values()} == {"sent"}
    batch = stack.job(batch_of(sent.stderr))
    assert (batch["sealed"], batch["counts"]["total"]) == (True, 15)
    waiting = [stack.job(each["id"]) for each in stack.client.get("/jobs", params={"batch": batch["id"]}).json()["data"]]
    assert {(job["waiting_for"], job["concurrency_key"], job["concurrency_limit"]) for job in waiting} == {
        ("not_before", "night", 2)
    }
    assert {job["kind"] for job in waiting} == {"ingest", "fetch"}
    assert stack.client.post(f"/jobs/{batch['id']}/cancel").status_code in (200, 202)
    assert run(stack, "ingest", str(folder), "--collection", "later", "--not-before", "1", "--watch").returncode == 2
    refused = run(stack, "ingest", str(folder), "--collection", "later", "--concurrency-limit", "2")
    assert (refused.returncode, "--concurrency-limit needs --concurrency-key" in refused.stderr) == (2, True)


def test_an_invalid_collection_name_is_rejected_before_anything_is_sent(stack: Stack, folder: Path) -> None:
    before = run(stack, "jobs", "--kind", "batch", "--limit", "1").stdout
    done = run(stack, "ingest", folder, "-c", "bad name!")
    assert (done.returncode, done.stdout) == (2, "")
    [error] = done.stderr.splitlines()
    assert "'bad name!' is not a valid collection name" in error
    assert run(stack, "jobs", "--kind", "batch", "--limit", "1").stdout == before


def test_every_file_is_reported_with_a_reason(stack: Stack, folder: Path) -> None:
    done = run(stack, "ingest", folder, "-c", "papers", "--json")
    assert done.returncode == 3, "two cannot be searched"
    outcomes = ends(done)
    assert len(outcomes) == 14
    assert {file for file, end in outcomes.items() if end == ("ready", False)} == {f"{number}.txt" for number in range(12)}
    assert (outcomes["deep/broken.pdf"], outcomes["empty.txt"]) == (("failed", False), ("empty", False))
    assert "could not be read" in done.stderr
    assert "14 files" in done.stderr
    assert stack.client.get("/collections/papers").json()["documents"] == 14
    assert counted(stack, done.stderr) == {**NONE, "total": 14, "completed": 12, "failed": 2}
    batch = batch_of(done.stderr)
    assert f"batch {batch} is completed: 14 jobs, 12 completed, 2 failed" in done.stderr
    for asked in ("show", "follow", "wait"):
        shown = run(stack, "job", asked, batch)
        assert (shown.returncode, re.search(r'total(=|": )14', shown.stdout) is not None) == (0, True), shown.stdout

    again = run(stack, "ingest", folder, "-c", "papers", "--json")
    assert set(ends(again).values()) == {("ready", True), ("empty", True), ("failed", False)}
    assert counted(stack, again.stderr) == {**NONE, "total": 1, "failed": 1}, "what is there already is not counted again"
    # What failed may not fail again; what is empty will be, and is sent only when asked for.
    assert stack.client.get("/collections/papers").json()["documents"] == 15
    assert ends(run(stack, "ingest", folder, "-c", "papers", "--json", "--again"))["empty.txt"] == ("empty", False)

    only = run(stack, "ingest", folder, "-c", "papers", "--include", "*.txt", "--exclude", "empty*")
    assert (only.returncode, only.stdout) == (0, "")
    assert "ready, already in the collection" in only.stderr


def test_every_archive_member_is_reported(stack: Stack, folder: Path) -> None:
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
        "letters.zip: ../up.txt": ("left_out", False),
        "letters.zip: twin.txt": ("ready", True),
        "spoilt.zip": ("failed", False),
        "none.zip": ("empty", False),
    }
    assert counted(stack, done.stderr) == {**NONE, "total": 3, "completed": 1, "failed": 2}
    for reason in ("could not be read", "points outside", "could not be unpacked", "contains no files"):
        assert reason in done.stderr
    assert "ready, already in the collection" in done.stderr

    (folder / "good.zip").write_bytes(packed_zip({"good.txt": b"Good."}))
    for known in (False, True):
        done = run(stack, "ingest", folder / "good.zip", "-c", "archives", "--json")
        assert (done.returncode, ends(done)) == (0, {"good.zip: good.txt": ("ready", known)})


def test_bytes_that_are_known_under_another_name_are_reported(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("These bytes are known.")
    (tmp_path / "own.txt").write_text("These will change.")
    assert run(stack, "ingest", tmp_path, "-c", "renamed").returncode == 0
    (tmp_path / "own.txt").write_text("These bytes are known.")
    done = run(stack, "ingest", tmp_path / "own.txt", "-c", "renamed", "--replace", "--json")
    [line] = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, line["status"], line["duplicate"], line["known_as"]) == (0, "ready", True, "old.txt")
    assert "1 file not added under a new name" in done.stderr
    assert "old.txt for own.txt" in done.stderr
    assert "Nothing was replaced" in done.stderr


def test_no_file_replaces_another_unasked(stack: Stack, tmp_path: Path) -> None:
    for year in ("2023", "2024"):
        (tmp_path / year).mkdir()
        (tmp_path / year / "report.txt").write_text(f"The report of {year}.")
    assert run(stack, "ingest", tmp_path / "2023", "-c", "reports").returncode == 0
    done = run(stack, "ingest", tmp_path / "2024", "-c", "reports", "--json")
    assert (done.returncode, ends(done)) == (3, {"report.txt": ("name_taken", False)})
    assert "1 file was not sent" in done.stderr
    assert "--replace" in done.stderr
    done = run(stack, "ingest", tmp_path / "2024", "-c", "reports", "--prefix", "2024/", "--json")
    assert (done.returncode, ends(done)) == (0, {"2024/report.txt": ("ready", False)})

    (tmp_path / "2023" / "report.txt").write_text("The corrected report of 2023.")
    archive = tmp_path / "all.zip"
    archive.write_bytes(packed_zip({"2024/report.txt": b"Another report of 2024.", "more.txt": b"More."}))
    done = run(stack, "ingest", archive, "-c", "reports", "--json")
    assert {name: status for name, (status, _) in ends(done).items()} == {
        "all.zip: more.txt": "ready",
        "all.zip: 2024/report.txt": "left_out",
    }
    done = run(stack, "ingest", tmp_path / "2023", archive, "-c", "reports", "--replace")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^report.txt +doc_\w{26} +doc_\w{26}$", done.stderr, re.MULTILINE), "the summary lists what was replaced"
    assert re.search(r"^all.zip: 2024/report.txt +doc_\w{26} +doc_\w{26}$", done.stderr, re.MULTILINE)
    assert stack.client.get("/collections/reports").json()["documents"] == 3


def test_files_with_long_and_odd_names_are_documents_of_their_own(stack: Stack, tmp_path: Path) -> None:
    deep = tmp_path.joinpath("deep", *(f"{number}-{'folder' * 9}" for number in range(6)))
    deep.mkdir(parents=True)
    for name in (b"alpha.txt", b"beta.txt", b"caf\xe9.txt", b"\x1b[31mred\x07.txt", b"empty\x1b[2J.txt"):
        (deep / os.fsdecode(name)).write_bytes(b"" if b"empty" in name else b"This is " + name)
    done = run(stack, "ingest", tmp_path / "deep", "-c", "deep", LC_ALL="C")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert r"empty\x1b[2J.txt" in done.stderr
    listed = run(stack, "documents", "-c", "deep", LC_ALL="C").stdout
    assert (listed.count("\tready\t"), listed.count("\tempty\t")) == (4, 1)
    assert r"caf\xe9.txt" in listed
    assert not set("\x1b\x07") & set(done.stderr + listed)
    shown = run_on_terminal(stack, "ingest", tmp_path / "deep", "-c", "deep")
    assert not any(sequence in shown for sequence in ("\x1b[31mred", "\x1b[2J", "\x07"))


def test_duplicate_files_are_counted_once(stack: Stack, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02}.txt").write_text(f"Of these there are two: {number // 2}.")
    done = run(stack, "ingest", tmp_path, "-c", "doubles", "--json")
    assert done.returncode == 0, done.stderr
    outcomes = list(ends(done).values())
    assert (outcomes.count(("ready", False)), outcomes.count(("ready", True))) == (6, 6)
    assert counted(stack, done.stderr) == {**NONE, "total": 6, "completed": 6}


def test_paths_can_be_piped(stack: Stack, folder: Path) -> None:
    listed = f"{folder / '1.txt'}\n{folder / 'deep'}\n"
    done = run(stack, "ingest", "-", "-c", "piped", "--json", given=listed)
    assert ends(done) == {"1.txt": ("ready", False), "broken.pdf": ("failed", False)}
    assert run(stack, "ingest", folder / "no", "-c", "piped").returncode == 2
    assert run(stack, "ingest", folder, "-c", "piped", "--include", "*.none").returncode == 2


def test_a_terminal_shows_bars_and_a_summary(stack: Stack, folder: Path) -> None:
    shown = run_on_terminal(stack, "ingest", folder, "-c", "seen", "--jobs", "2")
    assert "all files" in shown
    assert "14/14" in shown
    assert "7.txt" in shown, "each file under way has a bar"
    closing = shown[shown.rindex("14/14") :]
    assert "deep/broken.pdf" in closing
    assert "ready" in closing


def test_an_unreadable_file_does_not_stop_the_others(stack: Stack, folder: Path) -> None:
    (folder / "dangling.txt").symlink_to(folder / "gone.txt")
    os.mkfifo(folder / "pipe")
    done = run(stack, "ingest", folder / "1.txt", folder / "2.txt", "-c", "odd", "--json")
    assert done.returncode == 0
    vanishing = folder / "vanishing.txt"
    vanishing.write_text("soon gone")
    vanishing.chmod(0)
    if os.geteuid() != 0:  # root reads everything
        done = run(stack, "ingest", vanishing, folder / "3.txt", "-c", "odd", "--json")
        assert ends(done) == {"vanishing.txt": ("not_sent", False), "3.txt": ("ready", False)}


def test_an_interrupted_ingest_resumes(stack: Stack, tmp_path: Path) -> None:
    for number in range(FILES):
        (tmp_path / f"{number:03}.txt").write_text(f"Broken off at {number}?")
    process = start("ingest", tmp_path, "-c", "resumed", "--json", "--url", stack.url)
    assert process.stdout is not None
    before = [json.loads(process.stdout.readline())["file"] for _ in range(5)]
    process.send_signal(signal.SIGINT)
    rest, said = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Run the same command again" in said
    before += [json.loads(end)["file"] for end in rest.splitlines()]
    assert len(before) < FILES
    counts = counted(stack, said)
    assert len(before) <= counts["completed"] == counts["total"] < FILES, "it was sealed, and ends with what was sent"

    done = run(stack, "ingest", tmp_path, "-c", "resumed", "--json")
    assert done.returncode == 0
    outcomes = ends(done)
    assert len(outcomes) == FILES
    assert all(outcomes[file] == ("ready", True) for file in before), "what was read is not sent again"
    assert counted(stack, done.stderr)["total"] == FILES - counts["total"], "the second batch counts the rest"
    assert stack.client.get("/collections/resumed").json()["documents"] == FILES


def test_an_ingest_survives_a_restart_of_the_api(stack: Stack, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:03}.txt").write_text(f"Killed at {number}?")
    process = start("ingest", tmp_path, "-c", "survived", "--json", "--url", stack.url)
    assert process.stdout is not None
    process.stdout.readline()
    for server in psutil.Process(stack.pid("api")).children(recursive=True):
        server.kill()
    rest, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert len(rest.splitlines()) == 29
    assert counted(stack, said) == {**NONE, "total": 30, "completed": 30}
    wait_until(lambda: stack.client.get("/health/ready").status_code == 200, "ready")
    assert stack.client.get("/collections/survived").json()["documents"] == 30


def test_cancelling_the_batch_stops_the_ingest(stack: Stack, tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:03}.txt").write_text(f"Cancelled at {number}?")
    # It sends the next file once one is indexed, so it stops after the first ones.
    with stack.paused("cpu"):
        process = start("ingest", tmp_path, "-c", "cancelled", "--json", "--url", stack.url)
        assert process.stderr is not None
        batch = batch_of(process.stderr.readline())
        wait_until(lambda: stack.job(batch)["counts"]["total"] > 0, "the first file is sent")
        assert stack.client.post(f"/jobs/{batch}/cancel").status_code in (200, 202)
        rest, said = process.communicate(timeout=240)
    assert process.returncode == 3
    unsent = re.search(rf"Batch {batch} was cancelled, so (\d+) files were not sent. Run the same command again", said)
    assert unsent, said
    job = stack.ended(batch)
    assert job["status"] == "cancelled"
    outcomes = [json.loads(end) for end in rest.splitlines()]
    sent = sum(end["status"] != "not_sent" for end in outcomes)
    assert sent == 40 - int(unsent[1]), "each file was sent or reported as unsent"
    assert sum(end["status"] != "not_sent" for end in outcomes) >= job["counts"]["cancelled"]
    # Up to eight were on their way when the batch ended; these are cancelled too, and what it has counted stands.
    assert sent - 8 <= job["counts"]["total"] <= sent
    assert ends(run(stack, "ingest", tmp_path, "-c", "cancelled", "--json")).keys() >= {"000.txt", "039.txt"}
    assert stack.client.get("/collections/cancelled").json()["documents"] >= 40


@pytest.mark.slow_fault
def test_a_killed_ingest_resumes_and_its_batch_is_sealed(tmp_path: Path) -> None:
    files = tmp_path / "files"
    for place in (tmp_path / "stack", files):
        place.mkdir()
    stack = Stack(tmp_path / "stack", environment={"ENGINEHOUSE_SEAL_SECONDS": "3"})
    for number in range(40):
        (files / f"{number:03}.txt").write_text(f"Killed at {number}?")
    try:
        stack.start()
        process = start("ingest", files, "-c", "killed", "--json", "--url", stack.url)
        assert process.stdout is not None
        assert process.stderr is not None
        batch = batch_of(process.stderr.readline())
        for _ in range(10):
            process.stdout.readline()
        process.kill()
        process.communicate(timeout=240)
        job = stack.ended(batch)
        assert (job["status"], job["sealed"], job["result"]) == ("completed", True, job["counts"])
        assert 10 <= job["counts"]["completed"] == job["counts"]["total"] < 40

        done = run(stack, "ingest", files, "-c", "killed", "--json")
        assert done.returncode == 0, done.stderr
        assert len(ends(done)) == 40
        assert counted(stack, done.stderr)["total"] == 40 - job["counts"]["total"]
        assert stack.client.get("/collections/killed").json()["documents"] == 40
    finally:
        stack.kill()


@pytest.mark.slow_fault
def test_a_watched_folder_is_followed_across_restarts_of_the_command(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text)
        os.utime(folder / name, (1_000_000_000 + len(text), 1_000_000_000))  # it is not being written any more

    def watch(*options: str) -> subprocess.Popen[str]:
        return start("ingest", folder, "-c", "watched", "--watch", "--json", "--url", stack.url, *options, state=tmp_path)

    def next_outcome(process: subprocess.Popen[str]) -> dict[str, str]:
        assert process.stdout is not None
        return dict(json.loads(process.stdout.readline()))

    def end(process: subprocess.Popen[str], by: int) -> list[str]:
        process.send_signal(by)
        rest, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        return rest.splitlines()

    write("a.txt", "The first text of this folder.")
    first = watch()
    sent = next_outcome(first)
    assert (sent["file"], sent["status"], sent["duplicate"]) == ("a.txt", "ready", False)
    write("b.txt", "A text that came later.")
    assert next_outcome(first)["file"] == "b.txt"
    write("a.txt", "The first text of this folder, changed.")
    changed = next_outcome(first)
    assert (changed["file"], changed["replaces"]) == ("a.txt", sent["document"])
    assert end(first, signal.SIGINT) == []

    write("c.txt", "Written while nobody watched.")
    (folder / "b.txt").unlink()
    second = watch("--delete-removed")
    outcomes = {outcome["file"]: outcome["status"] for outcome in (next_outcome(second), next_outcome(second))}
    assert outcomes == {"c.txt": "ready", "b.txt": "deleted"}
    assert end(second, signal.SIGTERM) == [], "what was sent before is not sent again"
    found = stack.client.get("/collections/watched/documents").json()["data"]
    assert {document["name"] for document in found} == {"a.txt", "c.txt"}


def test_a_watch_needs_one_folder(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    for arguments, reason in (
        ([tmp_path / "a.txt", "--watch"], "--watch needs exactly one folder, or s3://BUCKET/PREFIX."),
        ([tmp_path, "--delete-removed"], "--delete-removed needs --watch."),
    ):
        done = run(stack, "ingest", *arguments, "-c", "watched")
        assert (done.returncode, reason in done.stderr) == (2, True), done.stderr


def test_files_are_fetched_from_urls(stack: Stack, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "boats.html").write_text("<p>Boats sail at noon.</p>")
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(pages)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r"port (\d+)", server.stdout.readline())
        assert found is not None
        lines = f"http://127.0.0.1:{found[1]}/boats.html\nhttp://127.0.0.1:{found[1]}/missing.html\n"
        refused = run(stack, "ingest", "--urls", "-", "-c", "fetched", "--json", given=lines)
        assert {status for status, _ in ends(refused).values()} == {"not_sent"}, "private addresses"
        done = run(stack, "ingest", "--urls", "-", "-c", "fetched", "--json", "--allow-network", "127.0.0.0/8", given=lines)
    finally:
        server.kill()
        server.communicate()
    host = f"127.0.0.1:{found[1]}"
    assert ends(done) == {f"{host}/boats.html": ("ready", False), f"{host}/missing.html": ("not_sent", False)}
    assert done.returncode == 3
    assert "status 404" in done.stderr
