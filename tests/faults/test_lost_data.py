"""Redis is lost or older than the documents, and the index is damaged: nothing that was accepted is lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.repository import REPOSITORY
from testing.stack import QUICK, Stack
from testing.waiting import wait_until
from tests.flows.test_documents import settled, upload


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Restarts take long on a busy machine, and no test here waits for a lease.
    slower = {"ENGINEHOUSE_LEASE_SECONDS": "30", "ENGINEHOUSE_RENEW_SECONDS": "5"}
    stack = Stack(tmp_path_factory.mktemp("lost"), environment=QUICK | slower)
    try:
        yield stack.start()
    finally:
        stack.kill()


def command(stack: Stack, *words: str, statuses: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cli.main", *words, "--data", str(stack.data)]
    done = subprocess.run(line, cwd=REPOSITORY, env=stack.environment, capture_output=True, text=True, timeout=240)
    assert done.returncode in statuses, done.stdout + done.stderr
    return done


def check(stack: Stack, *options: str) -> dict[str, str]:
    problems = json.loads(command(stack, "collections", "check", "--json", *options, statuses=(0, 1)).stdout)
    return {problem["object"]: ("fixed " if problem["fixed"] else "") + problem["kind"] for problem in problems}


def warnings(stack: Stack) -> str:
    answer = stack.client.get("/health/ready")
    assert answer.status_code == 200, answer.text
    return " ".join(answer.json()["warnings"])


def search(stack: Stack, collection: str, query: str, mode: str = "hybrid") -> Any:
    return stack.post(f"/collections/{collection}/search", {"query": query, "mode": mode, "top_k": 50})


def found(stack: Stack, collection: str, query: str, mode: str = "hybrid") -> set[str]:
    answer = search(stack, collection, query, mode)
    assert answer.status_code == 200, answer.text
    return {hit["document_id"] for hit in answer.json()["data"]}


def documents_of(stack: Stack, collection: str) -> dict[str, dict[str, Any]]:
    listed = stack.client.get(f"/collections/{collection}/documents", params={"limit": 100}).json()["data"]
    return {document["id"]: document for document in listed}


def restart(stack: Stack, change: Callable[[], None]) -> None:
    assert stack.stop() == 0
    change()
    stack.start()


def noted_changes(stack: Stack) -> int:
    return int(json.loads((stack.data / "data.json").read_text())["changes"])


STABLE = ("name", "version", "size", "sha256", "media_type", "metadata", "status", "pages", "chunks")


def stable(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in STABLE}


@pytest.mark.slow_fault
def test_a_lost_redis_loses_no_document(stack: Stack) -> None:
    texts = [(f"{n}.txt", f"Boilers of building {n} are inspected in spring.".encode()) for n in range(3)]
    ids = [settled(stack, each)["id"] for each in upload(stack, "kept", *texts)]
    [second] = upload(stack, "kept", ("0.txt", b"Boilers of building 0 are inspected in autumn."))
    ids = [settled(stack, second)["id"], *ids[1:]]
    [odd] = upload(stack, "kept", ("odd.bin", b"\x7fELF\x02\x01\x01" + bytes(200)))
    assert settled(stack, odd)["status"] == "unsupported"
    stack.client.post("/collections/kept/reindex", json={}, headers={"Prefer": "wait=60"}).raise_for_status()
    before = documents_of(stack, "kept")
    assert set(before) == {*ids, odd["id"]}
    assert before[ids[0]]["version"] == 2
    assert warnings(stack) == ""
    modes = {
        (stack.data / "documents" / each / name).stat().st_mode & 0o777 for each in ids for name in ("original", "document.json")
    }
    assert modes == {0o600}
    originals = {each: (stack.data / "documents" / each / "original").read_bytes() for each in ids}

    restart(stack, lambda: shutil.rmtree(stack.data / "redis" / "appendonlydir"))
    wait_until(lambda: "collections recover" in stack.log.read_text(), "the log names the command")
    assert "lost the records" in warnings(stack)
    expected = {str(stack.data): "records_incomplete", **dict.fromkeys(before, "no_record")}
    wait_until(lambda: check(stack) == expected, "the folders are too old to belong to uploads in progress")
    assert check(stack, "--fix") == expected, "a repair deletes nothing"
    assert {each: (stack.data / "documents" / each / "original").read_bytes() for each in ids} == originals

    recovered = json.loads(command(stack, "collections", "recover", "--json").stdout)
    assert sorted(recovered["ready"]) == sorted(ids), "what is complete in the index is not indexed again"
    for job in recovered["jobs"].values():
        stack.ended(job)
    after = documents_of(stack, "kept")
    assert {each: stable(after[each]) for each in ids} == {each: stable(before[each]) for each in ids}
    # The description is written a moment before the record.
    assert all(abs(after[each]["created_at"] - before[each]["created_at"]) < 2 for each in ids)
    assert after[odd["id"]]["status"] == "failed"
    for mode in ("vector", "keyword"):
        assert found(stack, "kept", "boilers", mode) == set(ids)
    assert warnings(stack) == ""
    assert check(stack) == {}


@pytest.mark.slow_fault
def test_a_stack_runs_on_a_backup_that_was_made_while_the_first_one_ran(stack: Stack, tmp_path: Path) -> None:
    [kept] = [settled(stack, each)["id"] for each in upload(stack, "copied", ("a.txt", b"The boilers are painted red."))]
    job = stack.generate("kept as well", max_tokens=4)["id"]
    before = stack.ended(job)
    command(stack, "backup", str(tmp_path / "backup.tar"))
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Stack(tmp_path / "elsewhere", environment=QUICK)
    try:
        command(elsewhere, "restore", str(tmp_path / "backup.tar"))
        elsewhere.start()
        assert warnings(elsewhere) == ""
        assert elsewhere.job(job) == before
        for mode in ("vector", "keyword", "hybrid"):
            assert found(elsewhere, "copied", "boilers", mode) == {kept}
        assert stable(documents_of(elsewhere, "copied")[kept]) == stable(documents_of(stack, "copied")[kept])
        assert elsewhere.ended(elsewhere.generate("new", max_tokens=4)["id"])["status"] == "completed"
        [new] = upload(elsewhere, "copied", ("b.txt", b"The boilers of the second house are blue."))
        settled(elsewhere, new)
        assert found(elsewhere, "copied", "boilers") == {kept, new["id"]}
        assert check(elsewhere) == {}
    finally:
        elsewhere.kill()


@pytest.mark.slow_fault
def test_an_older_redis_beside_newer_documents_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    [old, replaced] = [
        settled(stack, each)["id"]
        for each in upload(stack, "rolled", ("old.txt", b"Old turbines."), ("name.txt", b"First turbines of the name."))
    ]
    copy = tmp_path / "yesterday"
    restart(stack, lambda: shutil.copytree(stack.data / "redis" / "appendonlydir", copy) and None)
    [new] = upload(stack, "rolled", ("new.txt", b"New turbines."))
    settled(stack, new)
    [other] = upload(stack, "today", ("other.txt", b"Turbines of a new collection."))
    settled(stack, other)
    [second] = upload(stack, "rolled", ("name.txt", b"Second turbines of the name."))
    settled(stack, second)
    stack.client.post("/collections/rolled/reindex", json={}, headers={"Prefer": "wait=60"}).raise_for_status()
    wait_until(lambda: noted_changes(stack) >= 4, "the changes are noted in the folder")

    def roll_back() -> None:
        shutil.rmtree(stack.data / "redis" / "appendonlydir")
        shutil.copytree(copy, stack.data / "redis" / "appendonlydir")

    restart(stack, roll_back)
    assert "older than the documents" in warnings(stack)
    recovered = json.loads(command(stack, "collections", "recover", "--json").stdout)
    assert sorted(recovered["ready"]) == sorted([new["id"], other["id"], second["id"]])
    assert found(stack, "rolled", "turbines") == {old, new["id"], second["id"]}
    assert found(stack, "today", "turbines") == {other["id"]}
    assert replaced not in documents_of(stack, "rolled")
    assert warnings(stack) == ""
    assert check(stack) == {}


def test_the_trash_keeps_folders_without_a_description_and_gives_them_back(stack: Stack) -> None:
    [one] = upload(stack, "trash", ("one.txt", b"One pump."))
    settled(stack, one)
    folder = stack.data / "documents" / one["id"]
    description = (folder / "document.json").read_bytes()
    assert stack.client.delete(f"/documents/{one['id']}?permanent=true").status_code == 200
    assert not folder.exists(), "what a client deletes is deleted, and not in the trash"
    folder.mkdir()
    (folder / "original").write_bytes(b"One pump.")
    os.utime(folder, (1, 1))
    assert check(stack, "--fix") == {one["id"]: "fixed unused_folder"}
    [entry] = json.loads(command(stack, "trash", "list", "--json").stdout)
    assert (entry["document"], entry["size"], entry["name"]) == (one["id"], 9, None)
    command(stack, "trash", "restore", one["id"])
    (folder / "document.json").write_bytes(description)
    recovered = json.loads(command(stack, "collections", "recover", "--json").stdout)
    stack.ended(recovered["jobs"][one["id"]])
    assert found(stack, "trash", "pump") == {one["id"]}
    assert "0 folders" in command(stack, "trash", "empty", "--yes").stdout
    assert check(stack) == {}
