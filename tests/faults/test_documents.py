"""Ingestion while its processes die, its index is unavailable or full, and its files are hostile."""

import json
import resource
import signal
import zlib
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from shared.jobs.models import Outcome
from testing.fault_rig.disks import full
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.processes import find_descendant, kill, process_tree, suspended, with_limit
from testing.waiting import wait_until
from workers.index.vector_store import VectorStore

pytestmark = pytest.mark.slow_fault
STACK_OPTIONS = {"environment": {"ENGINEHOUSE_PARSE_SECONDS": "6", "ENGINEHOUSE_PARSE_MEMORY_BYTES": str(256 * 1024 * 1024)}}
MAX_GROWTH_BYTES = 150e6


def text(name: str, sentences: int = 60) -> bytes:
    return "".join(f"{name} number {n}: {TEXT}. " for n in range(sentences)).encode()


def process_running(stack: FaultStack, job: str) -> int:
    """The id of the process that runs a job."""
    wait_until(lambda: stack.read_job(job).status == "in_progress", f"{job} is running")
    return int(stack.read_job(job).worker.rpartition("/")[2])


def check_indexed_once(stack: FaultStack, collection: str, documents: list[str]) -> None:
    """Check that each document is ready and that the index has each of its chunks once (chunk ids are document and position)."""
    index = VectorStore(json.loads((stack.server.data / "state.json").read_text())["chroma"])
    collection_id = stack.client.get(f"/collections/{collection}").json()["id"]
    for document in documents:
        view = stack.client.get(f"/documents/{document}").json()
        assert view["status"] == "ready", view
        assert index.count_vectors(collection_id, document) == view["chunks"] > 0
    answer = stack.client.post(f"/collections/{collection}/search", json={"query": TEXT, "top_k": 20})
    chunks = [(hit["document_id"], hit["page"], hit["start"]) for hit in answer.json()["data"]]
    assert chunks
    assert len(set(chunks)) == len(chunks)


@pytest.mark.parametrize("victim", ["child", "main"])
def test_a_killed_prefork_worker_indexes_every_document_once(stack: FaultStack, victim: str) -> None:
    uploads = [stack.upload_file(victim, f"{n}.txt", text(f"{victim} {n}", 60)) for n in range(3)]
    main = stack.pid_of("cpu")
    kill(process_running(stack, uploads[0][1]) if victim == "child" else main)
    for _, job in uploads:
        stack.wait_for_end(job)
    check_indexed_once(stack, victim, [document for document, _ in uploads])
    assert (stack.pid_of("cpu") == main) == (victim == "child")


def test_a_job_that_kills_its_workers_becomes_a_dead_letter_and_harms_no_other(stack: FaultStack) -> None:
    document, job = stack.upload_file("poison", "poison.txt", text("poison", 400), ends=("failed",))
    others = [stack.upload_file("poison", f"{n}.txt", text(f"other {n}")) for n in range(2)]
    for attempt in range(1, 4):
        wait_until(lambda attempt=attempt: stack.read_job(job).attempt == attempt, f"attempt {attempt}")
        kill(process_running(stack, job))
    record = stack.wait_for_end(job)
    assert record.error is not None
    assert record.error["code"] == "worker_lost"
    assert [attempt.outcome for attempt in record.attempts] == [Outcome.LOST] * 3
    assert stack.client.get(f"/documents/{document}").json()["status"] == "failed"
    assert [dead["id"] for dead in stack.client.get("/admin/dead-letters").json()["data"]] == [job]
    for _, other in others:
        assert stack.wait_for_end(other).status == "completed"
    replayed = stack.client.post(f"/admin/dead-letters/{job}/replay")
    assert replayed.status_code == 202, replayed.text
    stack.ledger.record_accepted(replayed.json()["id"])
    assert stack.wait_for_end(replayed.json()["id"]).status == "completed"
    assert stack.client.get(f"/documents/{document}").json()["status"] == "ready"


def test_a_job_that_runs_out_of_memory_costs_no_worker_and_no_slot(stack: FaultStack) -> None:
    pid = stack.pid_of("gpu0")
    room = psutil.Process(pid).memory_info().vms + 24 * 1024 * 1024
    with with_limit(pid, resource.RLIMIT_AS, room):
        job = stack.submit_job("x" * 1_900_000, max_tokens=5)
        stack.ledger.allow_end(job, "failed")
        stack.wait_for_end(job)
    assert stack.pid_of("gpu0") == pid
    stack.wait_for_end(stack.submit_job())


def test_an_ingest_that_meets_an_outage_of_redis_is_retried_and_indexes_once(stack: FaultStack) -> None:
    document, job = stack.upload_file("outage", "long.txt", text("outage", 2000))
    process_running(stack, job)
    stack.kill_redis()
    hold_fault(12)  # longer than any step of an ingest that does without Redis
    stack.start_redis()
    assert stack.wait_for_end(job).status == "completed"
    wait_until(stack.is_ready, "the stack is ready again")
    check_indexed_once(stack, "outage", [document])


def test_an_index_killed_during_ingestion_misses_and_doubles_nothing(stack: FaultStack) -> None:
    uploads = [stack.upload_file("killed", f"{n}.txt", text(f"killed {n}", 100)) for n in range(4)]
    for _ in range(2):
        process_running(stack, uploads[0][1])
        kill(stack.pid_of("chroma"))
        hold_fault(1)
    for _, job in uploads:
        stack.wait_for_end(job)
    check_indexed_once(stack, "killed", [document for document, _ in uploads])


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow_fault)])
def test_a_hanging_index_delays_ingestion_but_no_answer(stack: FaultStack, seconds: float) -> None:
    stack.wait_for_end(stack.upload_file("hangs", f"first{seconds}.txt", text(f"first {seconds}"))[1])
    with suspended([stack.pid_of("chroma")]):
        document, job = stack.upload_file("hangs", f"second{seconds}.txt", text(f"second {seconds}"))
        answer = stack.client.post("/collections/hangs/search", json={"query": TEXT}, headers={"Prefer": "wait=2"})
        assert answer.elapsed.total_seconds() < 20, "the search itself waits for the index for 30 s"
        assert answer.status_code == 202, answer.text
        stack.ledger.record_accepted(answer.json()["id"], ends=("completed", "failed"))
        ready = stack.client.get("/health/ready")
        assert (ready.status_code, "Chroma" in ready.text) == (503, True)
        assert stack.client.get("/health/live").status_code == 200
        hold_fault(seconds)
    stack.wait_for_end(job)
    assert stack.client.get(f"/documents/{document}").json()["status"] == "ready"


def test_a_full_index_disk_fails_the_job_but_not_the_server(
    stack_with_a_small_index: tuple[FaultStack, Path],
) -> None:
    stack, folder = stack_with_a_small_index
    with full(folder):
        document, job = stack.upload_file("full", "a.txt", text("full", 100), ends=("failed",))
        record = stack.wait_for_end(job)
        assert record.error is not None
        assert record.error["code"] == "index_unavailable", record.error
        view = stack.client.get(f"/documents/{document}").json()
        assert (view["status"], bool(view["reason"])) == ("failed", True)
        stack.wait_for_end(stack.submit_job())

    def retry_succeeds() -> bool:
        retried = stack.client.post(f"/jobs/{job}/retry")
        assert retried.status_code == 202, retried.text
        stack.ledger.record_accepted(retried.json()["id"], ends=("completed", "failed"))
        record = stack.wait_for_end(retried.json()["id"])
        assert record.error is None or record.error["code"] == "index_unavailable", record.error
        return record.status == "completed"

    # Chroma does not answer for a collection whose disk was full, until it is restarted. A retry may come before that.
    wait_until(retry_succeeds, "a retry succeeds")
    stack.check_invariants()


def _pdf(content: bytes, *, kids: str = "[3 0 R]", filters: str = "") -> bytes:
    """A PDF of one page with this content."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids {kids} /Count 1 >>".encode(),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>",
        f"<< /Length {len(content)} {filters} >>\nstream\n".encode() + content + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    return bytes(out + f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode())


def _deflated(data: bytes, times: int = 1) -> bytes:
    for _ in range(times):
        data = zlib.compress(data, 9)
    return data


HOSTILE = {
    "bomb": lambda: _pdf(_deflated(b" " * 400_000_000), filters="/Filter /FlateDecode"),
    "bomb-in-bomb": lambda: _pdf(_deflated(b" " * 300_000_000, 2), filters="/Filter [/FlateDecode /FlateDecode]"),
    "operators": lambda: _pdf(_deflated(b"BT /F 9 Tf 1 0 0 1 9 9 Tm (x) Tj ET\n" * 1_300_000), filters="/Filter /FlateDecode"),
    "cycle": lambda: _pdf(b"BT ET", kids="[2 0 R]"),
    "truncated": lambda: _pdf(b"BT /F 9 Tf (hello) Tj ET")[:200],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_ends_in_time_and_harms_no_worker(stack: FaultStack, name: str) -> None:
    stack.wait_for_end(stack.upload_file("hostile", f"warm-{name}.txt", text(f"warm {name}"))[1])
    before = _memory(stack)
    _, job = stack.upload_file("hostile", f"{name}.pdf", HOSTILE[name](), ends=("failed", "completed"))
    stack.wait_for_end(job)
    assert _memory(stack) < before + MAX_GROWTH_BYTES
    assert stack.wait_for_end(stack.upload_file("hostile", f"after-{name}.txt", text(f"after {name}"))[1]).status == "completed"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGSTOP], ids=["crashes", "hangs"])
def test_a_parser_that_crashes_or_hangs_fails_only_its_file(stack: FaultStack, number: signal.Signals) -> None:
    name = f"parser{int(number)}"
    pages = _pdf(_deflated(b"BT /F 9 Tf 1 0 0 1 9 9 Tm (x) Tj ET\n" * 1_000_000), filters="/Filter /FlateDecode")
    _, job = stack.upload_file("hostile", f"{name}.pdf", pages + name.encode(), ends=("failed", "completed"))
    worker = stack.pid_of("cpu")
    hit: set[int] = set()

    def hit_parser_or_end() -> bool:
        child = find_descendant(worker, "parse_child")
        if child is not None and child.pid not in hit:
            hit.add(child.pid)
            kill(child.pid, number)
        return stack.read_job(job).status.final

    wait_until(hit_parser_or_end, "the job ends although every parser is hit")
    assert hit
    assert stack.pid_of("cpu") == worker
    assert stack.read_job(job).status == "failed"


def _memory(stack: FaultStack) -> int:
    total = 0
    for process in process_tree(stack.pid_of("cpu")):
        with suppress(psutil.NoSuchProcess):  # a child that has just ended
            total += process.memory_info().rss
    return total
