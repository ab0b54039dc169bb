"""``enginehouse generate|jobs|job|usage|search|collections|documents|webhooks|deliveries`` on terminals, in pipes and in scripts."""

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.receiver import Receiver, fail_first
from testing.repository import REPOSITORY
from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.command import exit_status, line, run, run_on_terminal, start


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(fail_first(500)) as receiver:
        yield receiver


def test_generate_prints_an_id_for_other_commands(stack: Stack) -> None:
    made = run(stack, "generate", "hello", "--plain", "--metadata", "order=17", "--end-user", "ada", "--deterministic")
    [job] = made.stdout.splitlines()
    waited = run(stack, "job", "wait", job)
    assert (waited.returncode, waited.stdout) == (0, "hello\n")
    record = json.loads(run(stack, "job", "show", job, "--json").stdout)
    assert (record["id"], record["metadata"], record["end_user"]) == (job, {"order": "17"}, "ada")
    assert run(stack, "job", "wait", "-", given=f"{job}\tand more\n{job}\n").stdout == "hello\nhello\n"


def test_prompts_and_answers_can_be_piped(stack: Stack) -> None:
    assert run(stack, "generate", "--plain", "--wait", given="from a pipe").stdout == "from a pipe\n"
    assert run(stack, "generate", "hi", "--system", "be kind", "--wait").stdout == "system: be kind\nuser: hi\n"
    many = "".join(f"line {number}\n" for number in range(30))
    assert run(stack, "generate", "--plain", "--lines", "--wait", "--jobs", "4", given=many).stdout == many
    jobs = run(stack, "generate", "--plain", "--lines", "--wait", "--json", given="a\nb\n").stdout.splitlines()
    assert [json.loads(job)["result"]["text"] for job in jobs] == ["a", "b"]


def test_follow_prints_the_answer_as_it_is_generated(slow_stack: Stack) -> None:
    process = subprocess.Popen(
        line("generate", "a text that takes a moment", "--plain", "--follow", "--url", slow_stack.url),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    pieces = []
    while piece := process.stdout.read1(65536):
        pieces.append(piece)
    assert process.wait(240) == 0
    assert b"".join(pieces) == b"a text that takes a moment\n"
    assert len(pieces) > 3, "pieces came while the model wrote"


def test_follow_prints_events_as_json_lines(stack: Stack) -> None:
    job = run(stack, "generate", "events", "--plain").stdout.strip()
    events = [json.loads(event) for event in run(stack, "job", "follow", job, "--json").stdout.splitlines()]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["event"], events[-1]["event"]) == ("queued", "ended")
    assert "".join(event["data"].get("text", "") for event in events) == "events"


def test_exit_statuses(stack: Stack) -> None:
    for arguments, code, says in (
        (("generate", "x", "--temperature", "9.5"), 1, "temperature"),
        (("generate", "x", "--metadata", "nothing"), 2, "NAME=VALUE"),
        (("generate", "x", "--follow", "--wait"), 2, "--follow"),
        (("jobs", "--status", "odd"), 2, "--status"),
        (("jobs", "--url", "ftp://x"), 2, "http://"),
        (("generate", "x" * 9000, "--wait"), 3, "prompt"),
        (("job", "show", "job_none"), 4, "does not exist"),
        (("collections", "show", "none"), 4, "There is no collection"),
        (("job", "nope"), 2, "'nope' is neither a command of `enginehouse job` nor the id of a job"),
        (("jobs", "--url", "http://127.0.0.1:9"), 5, "no response from http://127.0.0.1:9"),
        (("generate", "x", "--url", "http://127.0.0.1:9"), 5, "Start it with `enginehouse up`, or name its address with --url"),
    ):
        done = run(stack, *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        # Errors of the option parser are wrapped in a box.
        assert says in " ".join(done.stderr.replace("│", " ").split()), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_wait_timeout_is_status_6(slow_stack: Stack) -> None:
    done = run(slow_stack, "generate", "x" * 2000, "--max-tokens", "2000", "--wait", "--wait-timeout", "0.2")
    assert (done.returncode, done.stdout) == (6, "")
    assert "has not ended within 0.2 s" in done.stderr
    slow_stack.cancel(slow_stack.client.get("/jobs", params={"limit": 1}).json()["data"][0]["id"])


def test_a_cancelled_job_gives_status_3_and_other_results_are_printed(slow_stack: Stack) -> None:
    good = run(slow_stack, "generate", "good", "--plain").stdout.strip()
    # At 50 ms per character this answer takes 100 s, so it cannot end before the command cancels it.
    cancelled = run(slow_stack, "generate", "x" * 2000, "--plain", "--max-tokens", "2000").stdout.strip()
    assert run(slow_stack, "job", "cancel", cancelled).returncode == 0
    done = run(slow_stack, "job", "wait", cancelled, good)
    assert (done.returncode, done.stdout) == (3, "good\n")
    assert f"{cancelled} is cancelled" in done.stderr
    assert run(slow_stack, "job", "follow", cancelled).returncode == 3


def test_ended_jobs_are_retried_and_deleted(stack: Stack) -> None:
    job = run(stack, "generate", "good", "--plain").stdout.strip()
    assert run(stack, "job", "wait", job).returncode == 0
    [retry] = run(stack, "job", "retry", job).stdout.splitlines()
    assert run(stack, "job", "wait", retry).stdout == "good\n"
    assert run(stack, "job", "delete", retry).returncode == 0
    assert run(stack, "job", "show", retry).returncode == 4


def test_lists_are_tables_on_a_terminal_and_lines_in_a_pipe(stack: Stack) -> None:
    job = run(stack, "generate", "a\tb\nc", "--plain", "--wait", "--json").stdout
    record = json.loads(job)
    listed = run(stack, "jobs", "--kind", "generate", "--limit", "3").stdout
    header, first, *_ = listed.splitlines()
    assert header.split("\t")[:3] == ["job", "kind", "status"]
    fields = first.split("\t")
    assert (fields[:3], fields[-1]) == ([record["id"], "generate", "completed"], "a b c")
    assert next(one["id"] for one in json.loads(run(stack, "jobs", "--limit", "2", "--json").stdout)) == record["id"]
    shown = run_on_terminal(stack, "jobs", "--limit", "3")
    assert "about" in shown
    assert record["id"] in shown
    assert "\x1b[32mcompleted" in shown, "a state has its colour"
    assert record["id"] in run_on_terminal(stack, "job", record["id"])
    shown = run(stack, "job", "show", "-", given="\n".join(listed.splitlines()[:2])).stdout
    assert shown.startswith(f"job\t{record['id']}\n"), "the names of the columns are not read as an id"
    assert "Standard input is empty" in run(stack, "job", "show", "-", given="job\tkind\n").stderr


def test_models_are_listed_with_their_states(stack: Stack) -> None:
    listed = [row.split("\t")[:4] for row in run(stack, "models", "list").stdout.splitlines()]
    assert ["echo", "ready", "generate", "yes"] in listed
    assert ["not-started", "not_served", "generate", ""] in listed


def test_an_administrator_sees_and_changes_queues_workers_and_the_jobs_of_all_owners(slow_stack: Stack) -> None:
    # A dozen commands have to find them running, each of which takes seconds to start on a busy machine.
    running = [slow_stack.generate("x" * 4000, max_tokens=4000)["id"] for _ in range(8)]
    waiting = [slow_stack.generate("y", priority=9)["id"] for _ in range(3)]
    wait_until(lambda: all(slow_stack.job(job)["started_at"] for job in running), "every slot is busy")

    def lines(*arguments: str) -> list[list[str]]:
        done = run(slow_stack, *arguments)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("job\t")]

    [queue] = [row for row in lines("queues") if row[0] == "gpu.echo"]
    assert (queue[1], queue[3], queue[4], queue[5]) == ("3", "worker", "8", "8")
    assert ["gpu.echo", "local", "3"] in [row[:3] for row in lines("queues", "--by-owner")]
    [worker] = [row for row in lines("workers") if row[1] == "gpu"]
    assert worker[2:6] == ["echo", "ready", "8", "8"]
    name = worker[0].partition("/")[0]
    assert {row[0] for row in lines("jobs", "--all-owners", "--status", "queued")} == set(waiting)

    assert run(slow_stack, "queues", "pause", "echo").returncode == 0
    assert slow_stack.job(waiting[0])["waiting_for"] == "paused"
    assert lines("jobs", "cancel", "--status", "in_progress", "--dry-run") == [["8 jobs matched"]]
    refused = run(slow_stack, "jobs", "cancel", "--status", "in_progress")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert lines("jobs", "cancel", "--status", "in_progress", "--yes") == [["8 of 8 jobs cancelled"]]
    for job in running:
        assert slow_stack.ended(job)["status"] == "cancelled"
    assert [slow_stack.job(job)["status"] for job in waiting] == ["queued"] * 3, "the slots are free, and the queue is paused"

    assert run(slow_stack, "workers", "drain", name).returncode == 0
    assert run(slow_stack, "queues", "resume", "echo").returncode == 0
    wait_until(lambda: slow_stack.job(waiting[0])["waiting_for"] == "worker", "it waits for the drained worker")
    assert run(slow_stack, "workers", "resume", name).returncode == 0
    for job in waiting:
        assert slow_stack.ended(job)["status"] == "completed"
    [[retried]] = lines("jobs", "retry", "--status", "cancelled", "--model", "echo", "--yes")
    assert re.fullmatch(r"(\d+) of \1 jobs retried", retried), retried
    assert lines("jobs", "cancel", "--status", "in_progress", "--yes")
    for arguments in (["jobs", "delete"], ["jobs", "delete", "--older-than", "soon"], ["queues", "pause", "none"]):
        assert run(slow_stack, *arguments).returncode in (2, 4), arguments


def test_narrow_terminals_show_whole_ids(stack: Stack) -> None:
    job = run(stack, "generate", "narrow", "--plain").stdout.strip()
    assert run(stack, "job", "wait", job).returncode == 0
    for columns in (80, 30):
        assert job in run_on_terminal(stack, "jobs", "--limit", "3", columns=columns)


def test_a_healthcheck_finds_the_stack_and_is_silent_in_scripts(stack: Stack) -> None:
    done = run(stack, "healthcheck")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "gpu0@" in run_on_terminal(stack, "healthcheck")
    done = run(stack, "healthcheck", "--data", "/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert "with the data folder /nonexistent" in done.stderr


def test_text_that_is_not_utf8_is_refused_with_a_sentence(stack: Stack) -> None:
    odd = os.fsdecode(b"caf\xe9")
    for arguments in (("generate", "--wait", odd), ("job", "show", odd), ("search", odd, "-c", "x"), ("documents", "-c", odd)):
        done = run(stack, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert r"is not UTF-8: caf\xe9" in done.stderr


def test_answers_before_a_line_that_is_not_utf8_are_printed(stack: Stack) -> None:
    done = subprocess.run(
        line("generate", "--lines", "--wait"),
        cwd=REPOSITORY,
        env=stack.environment | {"ENGINEHOUSE_URL": stack.url},
        input=b"one\ncaf\xe9\nthree\n",
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"user: one\n")
    assert done.stderr == b"Line 2 of the prompts is not UTF-8: caf\\xe9\n"


def test_notices_about_missing_prompts_and_answers_leave_the_output_to_the_answers(stack: Stack) -> None:
    without = run(stack, "generate", "--wait", given="\n")
    assert (without.returncode, without.stdout, without.stderr) == (2, "", "There is no prompt: standard input is empty.\n")
    empty = run(stack, "generate", "--lines", "--wait", given="\n  \n")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "There are no prompts: every line is empty.\n")
    with stack.paused("gpu.echo"):
        mixed = start("generate", "--plain", "--lines", "--wait", "--jobs", "1", "--url", stack.url, "one\n\ntwo\nthree")
        [first] = wait_until(lambda: stack.client.get("/jobs?status=queued").json()["data"], "the first prompt is queued")
        stack.cancel(first["id"])
    output, errors = mixed.communicate(timeout=240)
    assert (mixed.returncode, output, errors) == (3, "two\nthree\n", f"{first['id']} is cancelled.\n")


def test_a_closed_output_pipe_is_not_an_error(stack: Stack) -> None:
    run(stack, "generate", "--plain", "--lines", given="x\n" * 40)
    process = subprocess.Popen(
        line("jobs", "--limit", "100", "--url", stack.url),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(240)


def test_documents_are_searched_listed_and_deleted(stack: Stack) -> None:
    collection = "command"
    files = {"file": ("ducks.txt", b"The capital of the ducks is Pondicherry-on-Mud.")}
    [document] = stack.client.post(f"/collections/{collection}/documents", files=files).json()["data"]
    stack.ended(document["job_id"])
    _, hit = run(stack, "search", "capital of the ducks", "-c", collection).stdout.splitlines()
    score, name, page, text = hit.split("\t")
    assert (name, page, text) == ("ducks.txt", "1", "The capital of the ducks is Pondicherry-on-Mud.")
    assert 0 < float(score) <= 1
    found = ("search", "Pondicherry", "-c", collection, "--mode", "keyword")
    assert run(stack, *found, "--filter", '{"name": "ducks.txt"}').stdout.splitlines()[1].split("\t")[1] == "ducks.txt"
    assert run(stack, *found, "--filter", '{"name": "geese.txt"}').stdout == ""
    assert run(stack, *found, "--filter", "nothing").returncode == 2
    explained = run(stack, *found, "--explain", "--reranker", "overlap", "--filter", '{"name": "ducks.txt"}')
    cells = explained.stdout.splitlines()[1].split("\t")
    assert (cells[1], cells[3], cells[4]) == ("-", "-", "1 (1.000)")
    assert cells[2].startswith("1 (")
    assert "overlap ranked 1 candidate" in explained.stderr
    assert "the filter left out 0 chunks (name eq: 0)" in explained.stderr
    made = run(stack, "collections", "reindex", collection, "--chunk-tokens", "120", "--wait")
    assert json.loads(made.stdout)["documents"] == 1
    cited = run(stack, "generate", "capital?", "--collection", collection, "--wait")
    assert "[1] ducks.txt, page 1" in cited.stderr
    assert [one["name"] for one in json.loads(run(stack, "collections", "--json").stdout) if one["name"] == collection]
    assert json.loads(run(stack, "collections", "show", collection, "--json").stdout)["documents"] == 1
    assert run(stack, "documents", "-c", collection).stdout.splitlines()[1].split("\t")[:3] == [
        document["id"],
        "ready",
        "ducks.txt",
    ]
    assert json.loads(run(stack, "documents", "show", document["id"], "--json").stdout)["status"] == "ready"
    assert "is called drakes.txt" in run(stack, "documents", "rename", document["id"], "drakes.txt").stderr
    assert run(stack, "documents", "counts", "-c", collection).stdout.splitlines() == ["status\tdocuments", "ready\t1", "all\t1"]
    stack.post("/collections", {"name": "command-moved"})
    moved = run(stack, "documents", "move", document["id"], "-c", "command-moved", "--wait")
    assert json.loads(moved.stdout)["status"] == "ready"
    assert run(stack, "documents", "delete", document["id"]).returncode == 0
    assert "is restored" in run(stack, "documents", "restore", document["id"]).stderr
    assert run(stack, "documents", "delete", document["id"], "--permanent").returncode == 0
    assert run(stack, "documents", "restore", document["id"]).returncode != 0
    assert run(stack, "documents", "show", document["id"]).returncode == 4
    assert run(stack, "collections", "delete", collection).returncode == 1, "nobody is there to be asked"
    assert run(stack, "collections", "delete", collection, "--yes").returncode == 0
    assert "is restored" in run(stack, "collections", "restore", collection).stderr
    assert run(stack, "collections", "delete", collection, "--yes", "--permanent").returncode == 0
    assert run(stack, "collections", "restore", collection).returncode == 4
    assert run(stack, "collections", "show", collection).returncode == 4


def test_webhooks_are_registered_changed_and_redelivered(stack: Stack, receiver: Receiver) -> None:
    made = json.loads(run(stack, "webhooks", "create", receiver.url, "--event", "job.completed", "--json").stdout)
    assert made["secret"].startswith("whsec_")
    listed = [row.split("\t")[:3] for row in run(stack, "webhooks").stdout.splitlines()]
    assert [made["id"], receiver.url, "enabled"] in listed
    job = run(stack, "generate", "deliver this", "--plain").stdout.strip()

    def statuses() -> list[int | None]:
        deliveries = json.loads(run(stack, "deliveries", "--job", job, "--json").stdout)
        return [attempt["status"] for delivery in deliveries for attempt in delivery["attempts"]]

    wait_until(lambda: statuses()[:1] == [500], "the first attempt has been answered")
    delivery, state, event, about = run(stack, "deliveries", "--job", job).stdout.splitlines()[1].split("\t")[:4]
    assert (event, about) == ("job.completed", job)
    # The command takes seconds to start on a busy machine, and the second attempt may come first.
    assert state in ("pending", "delivered")
    assert run(stack, "deliveries", "redeliver", delivery).returncode == 0
    wait_until(lambda: stack.client.get(f"/deliveries/{delivery}").json()["status"] == "delivered", "the delivery succeeds")
    shown = run_on_terminal(stack, "deliveries", "show", delivery)
    assert "answered 500" in shown
    assert "answered 204" in shown
    assert receiver.received[0].id == receiver.received[1].id
    assert json.loads(run(stack, "webhooks", "rotate", made["id"], "--json").stdout)["secret"] != made["secret"]
    assert not json.loads(run(stack, "webhooks", "change", made["id"], "--disable", "--json").stdout)["enabled"]
    assert run(stack, "webhooks", "delete", made["id"]).returncode == 0
    assert run(stack, "webhooks", "show", made["id"]).returncode == 4


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_listen_receives_events_of_all_jobs(stack: Stack, ending: signal.Signals) -> None:
    before = run(stack, "webhooks").stdout
    process = start("webhooks", "listen", "--port", "0", "--keep", "--json", "--url", stack.url)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert "Waiting for webhooks at http://127.0.0.1:" in process.stderr.readline()
        job = stack.generate("overheard")["id"]
        while (record := json.loads(process.stdout.readline()))["content"]["data"]["id"] != job:
            pass
        assert record["verified"]
        process.send_signal(ending)
        assert exit_status(process) == 128 + ending
    finally:
        process.kill()
        process.communicate()
    assert run(stack, "webhooks").stdout == before, "it is kept while it listens, and no longer"


def test_the_server_is_found_by_option_variable_and_data_folder(stack: Stack) -> None:
    job = stack.generate("here")["id"]
    nowhere = {"ENGINEHOUSE_DATA": "/nonexistent"}
    assert run(stack, "job", "show", job).returncode == 0
    assert run(stack, "job", "show", job, "--url", stack.url, **nowhere).returncode == 0
    assert run(stack, "job", "show", job, ENGINEHOUSE_URL=stack.url, **nowhere).returncode == 0
    assert run(stack, "job", "show", job, "--data", str(stack.data), **nowhere).returncode == 0
    # Commands that read the settings do not take these two for misspelt ones.
    assert run(stack, "version", ENGINEHOUSE_URL=stack.url, ENGINEHOUSE_API_KEY="eh_x").returncode == 0
    assert run(stack, "keys", "list", ENGINEHOUSE_URL=stack.url, ENGINEHOUSE_API_KEY="eh_x").returncode == 0


def test_the_shell_completes_commands_and_options(stack: Stack) -> None:
    def completed(words: str) -> list[str]:
        at = str(len(words.split(" ")))
        done = run(stack, _ENGINEHOUSE_COMPLETE="complete_bash", COMP_WORDS=f"enginehouse {words}", COMP_CWORD=at)
        return done.stdout.split()

    assert completed("gen") == ["generate"]
    assert set(completed("job ")) == {"cancel", "delete", "follow", "request", "retry", "show", "wait"}
    assert completed("jobs --sta") == ["--status"]
    assert completed("jobs --status q") == ["queued"]


def test_ctrl_c_is_status_130(slow_stack: Stack) -> None:
    text = "a text that is long enough to be interrupted" * 40
    process = start("generate", text, "--max-tokens", "2000", "--plain", "--follow", "--url", slow_stack.url)
    assert process.stdout is not None
    assert process.stdout.read(1) == "a", "it writes"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Traceback" not in errors
    slow_stack.cancel(slow_stack.client.get("/jobs", params={"limit": 1}).json()["data"][0]["id"])


def test_usage_is_printed_as_a_table_as_csv_and_as_json(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The archive opens at nine.")
    assert run(stack, "ingest", str(tmp_path), "--collection", "usage").returncode == 0
    job = run(stack, "generate", "count me", "--plain", "--end-user", "counted").stdout.strip()
    run(stack, "job", "wait", job)
    used = json.loads(run(stack, "job", "show", job, "--json").stdout)["result"]["usage"]
    header, *rows = csv.reader(run(stack, "usage", "--by", "end_user,kind", "--csv").stdout.splitlines())
    [row] = [dict(zip(header, row, strict=True)) for row in rows if row[0] == "counted"]
    assert (row["kind"], row["jobs"]) == ("generate", "1")
    assert (int(row["prompt_tokens"]), int(row["completion_tokens"])) == (used["prompt_tokens"], used["completion_tokens"])
    report = json.loads(run(stack, "usage", "--by", "kind", "--json").stdout)
    [ingested] = [entry for entry in report["data"] if entry["kind"] == "ingest"]
    assert ingested["pages"] >= 1
    assert ingested["bytes"] >= 26
    assert ingested["embedding_tokens"] > 0
    assert "embedding" in run_on_terminal(stack, "usage", "--by", "kind")
    assert run(stack, "usage", "--by", "colour").returncode == 1
