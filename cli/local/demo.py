"""``enginehouse demo``: the whole system once, through the same command and HTTP calls that users have.

Starts ``enginehouse up``, uploads PDFs, asks questions with and without them, prints the answers with their citations, and stops
everything.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from cli.errors import CommandError
from cli.local.prepare import prepare_models
from cli.local.process_commands import FLOWER_PASSWORD_FILE, FLOWER_USER, bracketed, environment_of
from cli.local.process_tree import spawn
from cli.local.readiness import displayed_path
from cli.safe_text import safe_line
from shared.data_folder import open_data_folder
from shared.documents.models import ENDED
from shared.packaged_files import packaged_file
from shared.settings import Settings
from shared.settings_sources import from_environment, is_given

COLLECTION = "handbook"
GENERAL_QUESTIONS = ("What is the capital of France?", "What color is the sky on a clear day?")
DOCUMENT_QUESTIONS = (
    "How many weeks of paid parental leave do parents receive?",
    "How often should I descale the Corvo S2?",
    "How old must riders of electric bikes be?",
)
# Marks the jobs of a demonstration, so that the next one can cancel those that an interrupted one left.
METADATA = {"source": "enginehouse demo"}
READY_SECONDS = 300
INGEST_SECONDS = 600
ANSWER_SECONDS = 300


def run_demo(settings: Settings) -> None:
    """Run the demonstration. Everything it started has ended when this returns. Raises CommandError if a step fails."""
    console = Console()
    open_data_folder(settings.data_dir)
    if settings.engine != "echo":
        prepare_models(settings, [])
    pdfs = _write_documents(settings.data_dir / "demo")
    console.print(f"Documents  {', '.join(pdf.name for pdf in pdfs)}", soft_wrap=True, highlight=False)
    with _running_stack(settings, console) as client:
        _cancel_unfinished(client)
        _ingest(client, pdfs, console)
        try:
            _ask(client, console)
        except KeyboardInterrupt:
            with suppress(CommandError, httpx2.TransportError):
                _cancel_unfinished(client)
            raise
        state = json.loads((settings.data_dir / "state.json").read_text())
        flower = f"{state['flower']}, user {FLOWER_USER}, password in {displayed_path(settings.data_dir / FLOWER_PASSWORD_FILE)}"
        for name, address in (("API", state["api"]), ("Web page", f"{state['api']}/"), ("Flower", flower)):
            console.print(f"{name:<9} {address}", soft_wrap=True)
    console.print(f"Everything has stopped. Run `{_up_command(settings)}` to start it again.", soft_wrap=True, highlight=False)


def _up_command(settings: Settings) -> str:
    """The command that starts the same stack, from the current folder."""
    program = Path(sys.executable).with_name("enginehouse")
    if shutil.which("enginehouse") == str(program):
        words = ["enginehouse", "up"]
    else:
        words = [str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program), "up"]
    default = from_environment(os.environ)
    if settings.data_dir != default.data_dir.resolve():
        words += ["--data", str(settings.data_dir)]
    if settings.models_file != default.models_file.resolve():
        words += ["--models", str(settings.models_file)]
    if settings.port != default.port:
        words += ["--port", str(settings.port)]
    if settings.engine != default.engine:
        words += ["--engine", settings.engine]
    return shlex.join(words)


@contextmanager
def _running_stack(settings: Settings, console: Console) -> Iterator[httpx2.Client]:
    """Start the stack and yield a client of its API; the stack is always stopped in order."""
    log = settings.data_dir / "demo.log"
    with log.open("wb") as output:
        # Its errors go to our standard error, its log to a file, so that the answers stay readable.
        command = [sys.executable, "-m", "cli.main", "up", "--port", str(settings.port), "--data", str(settings.data_dir)]
        process = spawn(
            command, environment=_launch_environment(settings), output=output, errors=None, death_signal=signal.SIGTERM
        )
    try:
        with httpx2.Client(base_url=f"http://{bracketed(settings.host)}:{settings.port}", timeout=60, trust_env=False) as client:
            _wait_until_ready(client, process, settings.data_dir / "state.json", log, console)
            yield client
    finally:
        if process.poll() is None:
            with _status(console, "Stopping"):
                process.terminate()
                process.wait()
        status = process.returncode
    if status != 0:
        raise CommandError(f"The stack exited with status {status}; see its log {log}.")


def _launch_environment(settings: Settings) -> dict[str, str]:
    """The settings for ``up``, without the addresses of the servers that it starts itself."""
    environment = environment_of(settings)
    for name in ("REDIS_URL", "ENGINEHOUSE_CHROMA_URL"):
        if not is_given(os.environ, name):
            del environment[name]
    return environment


def _wait_until_ready(client: httpx2.Client, process: subprocess.Popen[bytes], state: Path, log: Path, console: Console) -> None:
    started = time.monotonic()
    missing = "the API"
    with _status(console, "Starting the stack") as status:
        while time.monotonic() - started < READY_SECONDS:
            if process.poll() == 2:
                raise CommandError("The stack did not start; the reason is above.")
            if process.poll() is not None:
                raise CommandError(f"The stack did not start (exit status {process.returncode}); see its log {log}.")
            # A previous stack that is stopping may still answer on the same port.
            if _is_started_by(state, process.pid):
                try:
                    answer = client.get("/health/ready")
                    if answer.status_code == 200:
                        break
                    missing = ", ".join(answer.json().get("waiting_for", [])) or f"the API (status {answer.status_code})"
                except httpx2.TransportError:
                    missing = "the API"
            status.update(f"Waiting for {missing}")
            time.sleep(0.2)
        else:
            raise CommandError(
                f"The stack was not ready within {READY_SECONDS} s: it was waiting for {missing}; see its log {log}."
            )
    console.print(f"Ready in {time.monotonic() - started:.1f} s")


def _is_started_by(state: Path, launcher: int) -> bool:
    try:
        return bool(json.loads(state.read_text())["launcher_pid"] == launcher)
    except FileNotFoundError:
        return False


def _cancel_unfinished(client: httpx2.Client) -> None:
    """Cancel the questions of an interrupted demonstration, which would compete with those of the next one."""
    for status in ("queued", "in_progress"):
        jobs = _checked(client.get("/jobs", params={"status": status, "kind": "generate", "limit": 100}))["data"]
        for job in jobs:
            if job["metadata"] == METADATA:
                client.post(f"/jobs/{job['id']}/cancel")  # 409 if it has ended in the meantime


def _ingest(client: httpx2.Client, pdfs: Sequence[Path], console: Console) -> None:
    """Upload the PDFs and wait until all are searchable."""
    started = time.monotonic()
    documents = []
    for pdf in pdfs:
        form = {"file": (pdf.name, pdf.read_bytes(), "application/pdf")}
        documents += _checked(client.post(f"/collections/{COLLECTION}/documents", files=form))["data"]
    with _status(console, "Parsing, embedding, indexing") as status:
        while time.monotonic() - started < INGEST_SECONDS:
            documents = [_checked(client.get(f"/documents/{document['id']}")) for document in documents]
            ended = [document for document in documents if document["status"] in ENDED]
            status.update(f"Parsing, embedding, indexing: {len(ended)} of {len(documents)} documents done")
            if len(ended) == len(documents):
                break
            time.sleep(0.3)
    for document in documents:
        if document["status"] != "ready":
            reason = document["reason"] or f"not done after {INGEST_SECONDS} s"
            raise CommandError(f"{document['name']} is not searchable: its status is {document['status']} ({reason}).")
    console.print(
        f"Ingested {len(documents)} documents, {sum(document['pages'] for document in documents)} pages, in {time.monotonic() - started:.1f} s"
    )


def _ask(client: httpx2.Client, console: Console) -> None:
    """Submit all questions at once, then print each answer."""
    questions = [(question, None) for question in GENERAL_QUESTIONS] + [(question, COLLECTION) for question in DOCUMENT_QUESTIONS]
    console.print(f"Asking {len(questions)} questions …", highlight=False)
    submitted = []
    for question, collection in questions:
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 48,
            "temperature": 0,
            "metadata": METADATA,
        } | ({"collection": collection} if collection else {})
        submitted.append((question, _checked(client.post("/generate", json=body))["id"]))
    for number, (question, job_id) in enumerate(submitted, start=1):
        deadline = time.monotonic() + ANSWER_SECONDS
        # In a pipe, "Asking …" and the answers show the progress.
        with console.status(f"Waiting for answer {number} of {len(submitted)}"):
            job = _checked(client.get(f"/jobs/{job_id}", params={"wait": 20}))
            while job["status"] in ("queued", "in_progress") and time.monotonic() < deadline:
                job = _checked(client.get(f"/jobs/{job_id}", params={"wait": 20}))
        if job["status"] != "completed":
            raise CommandError(
                f"Job {job_id} is {job['status']}: {(job.get('error') or {}).get('message', 'without an error message')}"
            )
        _print_answer(question, job, console)
    console.print()


def _print_answer(question: str, job: dict[str, Any], console: Console) -> None:
    result, times = job["result"], job["timings"]
    cited = dict.fromkeys(f"{citation['document']}, page {citation['page']}" for citation in result.get("citations") or [])
    first = "no token" if times["first_token"] is None else f"first token after {times['first_token']:.1f} s"
    rows = {
        "Question": question,
        "Answer": " ".join(result["text"].split()),
        "Sources": "; ".join(cited) or "none, as the question was asked without documents",
        "Time": f"{times['total']:.1f} s, {first}",
    }
    console.print()
    for name, text in rows.items():
        console.print(f"[bold]{name:<9}[/bold] {escape(safe_line(text))}", soft_wrap=True, highlight=False)


def _write_documents(folder: Path) -> list[Path]:
    try:
        from cli.local.pdf_writer import write_pdfs
    except ModuleNotFoundError as error:
        raise CommandError(f"The demonstration needs the package {error.name}: install enginehouse[all].") from None
    return write_pdfs(sorted(packaged_file("examples/documents").glob("*.md")), folder)


def _checked(answer: httpx2.Response) -> dict[str, Any]:
    if answer.is_success:
        return dict(answer.json())
    raise CommandError(f"{answer.request.method} {answer.request.url} answered {answer.status_code}: {answer.text[:500]}")


def _status(console: Console, text: str) -> Status:
    """A status line with a spinner on a terminal; elsewhere, ``text`` is printed once."""
    if not console.is_terminal:
        console.print(f"{text} …", highlight=False)
    return console.status(text)
