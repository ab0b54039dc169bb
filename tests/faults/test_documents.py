"""Faults 4 to 7 and 38 to 41: ingestion whose processes die, whose index is away or full, whose files are hostile."""

import json
import resource
import signal
import zlib
from pathlib import Path

import psutil
import pytest

from shared.jobs.models import Outcome
from testing.fault_rig.disks import full
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import descendant, family, kill, limited, stopped
from testing.waiting import wait_until
from workers.index.vector_store import VectorStore

pytestmark = pytest.mark.slow_fault
HOUSE = {"environment": {"ENGINEHOUSE_PARSE_SECONDS": "6", "ENGINEHOUSE_PARSE_MEMORY_BYTES": str(256 * 1024 * 1024)}}
MOST_PARSING_SECONDS = 30
MOST_GROWTH_BYTES = 150e6


def text(name: str, sentences: int = 60) -> bytes:
    return "".join(f"{name} number {n}: {TEXT}. " for n in range(sentences)).encode()


def runtime(house: FaultStack, job: str) -> int:
    """The process that holds a running job."""
    wait_until(lambda: house.job(job).status == "in_progress", f"{job} is under way", seconds=30)
    return int(house.job(job).worker.rpartition("/")[2])


def check_indexed_once(house: FaultStack, collection: str, documents: list[str]) -> None:
    """Each document is ready, and the index holds each of its chunks once (their ids are made of document and position)."""
    index = VectorStore(json.loads((house.stack.data / "state.json").read_text())["chroma"])
    collection_id = house.client.get(f"/collections/{collection}").json()["id"]
    for document in documents:
        view = house.client.get(f"/documents/{document}").json()
        assert view["status"] == "ready", view
        assert index.count_vectors(collection_id, document) == view["chunks"] > 0
    answer = house.client.post(f"/collections/{collection}/search", json={"query": TEXT, "top_k": 20})
    places = [(hit["document_id"], hit["page"], hit["start"]) for hit in answer.json()["data"]]
    assert places
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("victim", ["child", "main"])
def test_04_05_a_killed_prefork_worker_indexes_every_document_once(house: FaultStack, victim: str) -> None:
    uploads = [house.upload(victim, f"{n}.txt", text(f"{victim} {n}", 60)) for n in range(3)]
    main = house.pid("cpu")
    kill(runtime(house, uploads[0][1]) if victim == "child" else main)
    for _, job in uploads:
        house.ended(job, 60)
    check_indexed_once(house, victim, [document for document, _ in uploads])
    assert (house.pid("cpu") == main) == (victim == "child")


def test_06_a_job_that_kills_each_of_its_workers_ends_dead_and_harms_no_other(house: FaultStack) -> None:
    document, job = house.upload("poison", "poison.txt", text("poison", 400), ends=("failed",))
    others = [house.upload("poison", f"{n}.txt", text(f"other {n}")) for n in range(2)]
    for attempt in range(1, 4):
        wait_until(lambda attempt=attempt: house.job(job).attempt == attempt, f"attempt {attempt}", seconds=30)
        kill(runtime(house, job))
    record = house.ended(job)
    assert record.error is not None
    assert record.error["code"] == "worker_lost"
    assert [attempt.outcome for attempt in record.attempts] == [Outcome.LOST] * 3
    assert house.client.get(f"/documents/{document}").json()["status"] == "failed"
    assert [dead["id"] for dead in house.client.get("/admin/dead-letters").json()["data"]] == [job]
    for _, other in others:
        assert house.ended(other, 60).status == "completed"
    replayed = house.client.post(f"/admin/dead-letters/{job}/replay")
    assert replayed.status_code == 202, replayed.text
    house.ledger.accepted(replayed.json()["id"])
    assert house.ended(replayed.json()["id"], 60).status == "completed"
    assert house.client.get(f"/documents/{document}").json()["status"] == "ready"


def test_07_a_job_that_runs_out_of_memory_costs_no_worker_and_no_slot(house: FaultStack) -> None:
    pid = house.pid("gpu0")
    room = psutil.Process(pid).memory_info().vms + 24 * 1024 * 1024
    with limited(pid, resource.RLIMIT_AS, room):
        job = house.submit("x" * 1_900_000, max_tokens=5)
        house.ledger.may_end(job, "failed")
        house.ended(job)
    assert house.pid("gpu0") == pid
    house.ended(house.submit())


def test_38_an_index_killed_during_ingestion_misses_and_doubles_nothing(house: FaultStack) -> None:
    uploads = [house.upload("killed", f"{n}.txt", text(f"killed {n}", 100)) for n in range(4)]
    for _ in range(2):
        runtime(house, uploads[0][1])
        kill(house.pid("chroma"))
        pause(1)
    for _, job in uploads:
        house.ended(job, 60)
    check_indexed_once(house, "killed", [document for document, _ in uploads])


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow_fault)])
def test_39_an_index_that_hangs_delays_ingestion_and_no_answer(house: FaultStack, seconds: float) -> None:
    house.ended(house.upload("hangs", f"first{seconds}.txt", text(f"first {seconds}"))[1], 60)
    with stopped([house.pid("chroma")]):
        document, job = house.upload("hangs", f"second{seconds}.txt", text(f"second {seconds}"))
        answer = house.client.post("/collections/hangs/search", json={"query": TEXT}, headers={"Prefer": "wait=2"})
        assert answer.elapsed.total_seconds() < 5
        assert answer.status_code == 202, answer.text
        house.ledger.accepted(answer.json()["id"], ends=("completed", "failed"))
        ready = house.client.get("/health/ready")
        assert (ready.status_code, "Chroma" in ready.text) == (503, True)
        assert house.client.get("/health/live").status_code == 200
        pause(seconds)
    house.ended(job, 90)
    assert house.client.get(f"/documents/{document}").json()["status"] == "ready"


def test_40_an_index_whose_disk_is_full_fails_the_job_and_not_the_server(
    house_with_a_small_index: tuple[FaultStack, Path],
) -> None:
    house, folder = house_with_a_small_index
    with full(folder):
        document, job = house.upload("full", "a.txt", text("full", 100), ends=("failed",))
        record = house.ended(job, 60)
        assert record.error is not None
        assert record.error["code"] == "index_unavailable", record.error
        view = house.client.get(f"/documents/{document}").json()
        assert (view["status"], bool(view["reason"])) == ("failed", True)
        house.ended(house.submit())
    again = house.client.post(f"/jobs/{job}/retry")
    assert again.status_code == 202, again.text
    house.ledger.accepted(again.json()["id"])
    assert house.ended(again.json()["id"], 60).status == "completed"
    house.check()


def _pdf(content: bytes, *, kids: str = "[3 0 R]", filters: str = "") -> bytes:
    """A PDF of one page with this content."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids {kids} /Count 1 >>".encode(),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>",
        f"<< /Length {len(content)} {filters} >>\nstream\n".encode() + content + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
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
def test_41_a_hostile_file_ends_in_time_and_leaves_the_worker_as_it_was(house: FaultStack, name: str) -> None:
    house.ended(house.upload("hostile", f"warm-{name}.txt", text(f"warm {name}"))[1], 60)
    before = _memory(house)
    _, job = house.upload("hostile", f"{name}.pdf", HOSTILE[name](), ends=("failed", "completed"))
    house.ended(job, MOST_PARSING_SECONDS)
    assert _memory(house) < before + MOST_GROWTH_BYTES
    assert house.ended(house.upload("hostile", f"after-{name}.txt", text(f"after {name}"))[1], 60).status == "completed"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGSTOP], ids=["crashes", "endless"])
def test_41_a_parser_that_crashes_or_never_ends_fails_the_file_alone(house: FaultStack, number: signal.Signals) -> None:
    name = f"parser{int(number)}"
    pages = _pdf(_deflated(b"BT /F 9 Tf 1 0 0 1 9 9 Tm (x) Tj ET\n" * 1_000_000), filters="/Filter /FlateDecode")
    _, job = house.upload("hostile", f"{name}.pdf", pages + name.encode(), ends=("failed", "completed"))
    worker = house.pid("cpu")
    struck: set[int] = set()

    def strike_or_ended() -> bool:
        child = descendant(worker, "parse_child")
        if child is not None and child.pid not in struck:
            struck.add(child.pid)
            kill(child.pid, number)
        return house.job(job).status.final

    wait_until(strike_or_ended, "it has ended although every parser is struck", seconds=MOST_PARSING_SECONDS)
    assert struck
    assert house.pid("cpu") == worker
    assert house.job(job).status == "failed"


def _memory(house: FaultStack) -> int:
    return sum(process.memory_info().rss for process in family(house.pid("cpu")))
