"""The examples, run as their docstrings describe."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cli.local.redis_server import free_port
from enginehouse_client import Client
from testing.client_environment import run_client
from testing.repository import REPOSITORY
from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.command import run as command

EXAMPLES = REPOSITORY / "examples"


def run(stack: Stack, *line: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    around = os.environ | {"ENGINEHOUSE_URL": stack.url} | environment
    return subprocess.run(
        [str(word) for word in line], cwd=REPOSITORY, env=around, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def receiver(stack: Stack) -> Iterator[tuple[subprocess.Popen[str], str]]:
    secret = command(stack, "webhooks", "secret").stdout.strip()
    port = str(free_port())
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", str(EXAMPLES / "webhook_receiver.py"), "run", "--port", port],
        cwd=REPOSITORY,
        env=os.environ | {"WEBHOOK_SECRET": secret, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    url = f"http://127.0.0.1:{port}/hook"

    def answers() -> bool:
        try:
            return httpx2.get(url).status_code == 405
        except httpx2.TransportError:
            return False

    wait_until(answers, "the receiver answers")
    yield process, url
    process.kill()
    process.communicate()


def test_the_webhook_receiver_verifies_and_deduplicates(stack: Stack, receiver: tuple[subprocess.Popen[str], str]) -> None:
    process, url = receiver
    assert process.stdout is not None

    def said() -> str:
        assert process.stdout is not None
        return next(line for line in process.stdout if line.startswith("job."))

    assert httpx2.post(url, json={"type": "job.completed"}).status_code == 401
    job = command(stack, "generate", "delivered", "--plain", "--webhook", url).stdout.strip()
    assert said() == f"job.completed {job} delivered\n"
    with Client(stack.url) as client:
        [delivery] = client.deliveries(job=job)
        wait_until(lambda: client.delivery(delivery.id).status == "delivered", "it is delivered")
        client.redeliver(delivery.id)
        wait_until(lambda: len(client.delivery(delivery.id).attempts) == 2, "the delivery is attempted again")
    other = command(stack, "generate", "other", "--plain", "--webhook", url).stdout.strip()
    assert said() == f"job.completed {other} other\n", "the one that came twice was acted on once"


def test_bulk_ingest_writes_a_report(stack: Stack, tmp_path: Path) -> None:
    folder, report = tmp_path / "papers", tmp_path / "report.csv"
    folder.mkdir()
    (folder / "good.txt").write_text("A good paper.")
    (folder / "bad.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    line = [sys.executable, EXAMPLES / "bulk_ingest.py", folder, "--collection", "examples-bulk", "--report", report]
    done = run(stack, *line)
    assert done.returncode == 3, done.stderr
    assert "2 of 2 files done, 1 not searchable" in done.stderr
    rows = {row["file"]: row for row in csv.DictReader(report.open())}
    assert (rows["good.txt"]["status"], rows["bad.pdf"]["status"]) == ("ready", "failed")
    assert rows["bad.pdf"]["reason"]
    (folder / "bad.pdf").unlink()
    assert run(stack, *line).returncode == 0


def test_curl_only(stack: Stack) -> None:
    done = run(stack, "bash", EXAMPLES / "curl_only.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    said = [part.splitlines() for part in done.stdout.split("== ")[1:]]
    assert [part[0].partition(";")[0].partition(",")[0] for part in said] == [
        "Submit",
        "Wait for the answer in the same call",
        "Stream the answer",
        "Upload a document and search it",
        "Ask",
        "Cancel a job",
    ]
    assert said[0][1:] == ["completed"]
    assert said[1][1:] == ["user: What is the capital of Fra"]
    assert {line.split()[-1] for line in said[2][1:]} >= {"queued", "started", "delta", "ended"}
    assert said[3][1] == "completed"
    assert "vacation" in said[3][2]
    assert said[4][1:], "a passage is cited"


def test_the_langchain_chain_answers(stack: Stack) -> None:
    with Client(stack.url) as client:
        assert not client.ingest("examples-langchain", EXAMPLES / "documents").rejected
    done = run(
        stack,
        sys.executable,
        EXAMPLES / "langchain_retriever.py",
        "examples-langchain",
        "How many days of paid vacation are there?",
    )
    assert done.returncode == 0, done.stderr
    # The echo engine says what it was asked.
    assert done.stdout.startswith("user: Answer only from these passages.")
    assert len(done.stdout) > 60


def test_openais_client_streams_an_answer(stack: Stack) -> None:
    done = run(stack, sys.executable, EXAMPLES / "openai_chat.py", "Where is it?")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "user: Where is it?\n"
    assert "tokens\njob job_" in done.stderr


def test_a_response_continues_after_an_interruption(stack: Stack) -> None:
    done = run(stack, sys.executable, EXAMPLES / "openai_responses.py", "Where is it?")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "user: Where is it?\n"
    assert "after 3 items" in done.stderr


def test_langchain_streams_an_answer(stack: Stack) -> None:
    done = run(stack, sys.executable, EXAMPLES / "langchain_chat.py", "French", "It is open.", ENGINEHOUSE_MODEL="echo")
    assert done.returncode == 0, done.stderr
    assert "It is open." in done.stdout


def test_langchain_calls_functions_matches_a_schema_and_embeds(stack: Stack) -> None:
    names = {"ENGINEHOUSE_MODEL": "echo", "ENGINEHOUSE_EMBEDDING_MODEL": "hash"}
    done = run(stack, sys.executable, EXAMPLES / "langchain_tools.py", 'answer: {"city": "Rome"}', **names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("answer: user: ")
    assert done.stdout.endswith("city: Rome\ndimensions: 384\n")


@pytest.mark.slow_fault
def test_llama_index_streams_and_calls_functions(stack: Stack, tmp_path: Path) -> None:
    environment = {"ENGINEHOUSE_URL": stack.url, "ENGINEHOUSE_MODEL": "echo"}
    arguments = [str(EXAMPLES / "llama_index_chat.py"), 'call: weather {"city": "Rome"}']
    streamed, called = run_client("python", arguments, tmp_path, environment).rstrip().rsplit("\n", 1)
    assert streamed
    assert called == "It is 24 degrees in Rome."


def test_each_example_documents_how_to_run_it() -> None:
    for example in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.sh")]:
        head = example.read_text().split("import ", 1)[0] if example.suffix == ".py" else example.read_text()[:400]
        assert f"examples/{example.name}" in head, example
