"""Uploads of many documents: archives, versions, passwords, and hostile files among good ones."""

from typing import Any

import pytest

from testing.fault_rig.processes import kill
from testing.stack import Stack
from testing.waiting import wait_until
from tests.odd_files import locked_pdf, odd_files, packed_tar, packed_zip, pdf, pdf_bomb

ODD = {file.name: file for file in odd_files()}


def send(stack: Stack, collection: str, *files: tuple[str, bytes], **form: str) -> dict[str, Any]:
    answer = stack.client.post(f"/collections/{collection}/documents", files=[("file", file) for file in files], data=form)
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


def documents(stack: Stack, collection: str) -> dict[str, dict[str, Any]]:
    found = stack.client.get(f"/collections/{collection}/documents", params={"limit": 100}).json()["data"]
    return {document["name"]: document for document in found}


def found(stack: Stack, collection: str, query: str) -> set[str]:
    hits = stack.post(f"/collections/{collection}/search", {"query": query, "top_k": 20}).json()["data"]
    return {hit["text"] for hit in hits}


def test_an_archive_becomes_documents_of_its_batch(stack: Stack) -> None:
    inner = packed_zip({"x.txt": b"never seen"})
    archive = packed_zip(
        {"a/one.txt": b"The first letter.", "b/two.txt": b"The second letter.", "../up.txt": b"No.", "in.zip": inner}
    )
    taken = send(
        stack, "archive", ("letters.zip", archive), ("three.txt", b"The third letter."), ("copy.txt", b"The third letter.")
    )
    assert [entry["name"] for entry in taken["archives"]] == ["letters.zip"]
    batch = stack.ended(taken["batch"]["id"])
    # One document of the request (the copy is the same one), and the three in the archive.
    assert batch["counts"] == {"total": 4, "completed": 3, "failed": 1, "cancelled": 0, "expired": 0}
    ends = {name: document["status"] for name, document in documents(stack, "archive").items()}
    assert ends == {"a/one.txt": "ready", "b/two.txt": "ready", "three.txt": "ready", "in.zip": "unsupported"}
    result = stack.job(taken["archives"][0]["job"])["result"]
    assert (result["documents"], result["duplicates"], result["skipped"]) == (3, 0, 1)
    assert result["skipped_members"] == [{"name": "../up.txt", "reason": "its name points outside the archive"}]
    assert not list(stack.data.glob("archives/*"))


def test_the_tutorial_upload_accepts_an_archive(stack: Stack) -> None:
    files = {"file": ("letter.tar", packed_tar("letter.txt", b"Sent in a tar."))}
    answer = stack.client.post("/upload", files=files, headers={"Prefer": "wait=60"}).json()
    assert (answer["document"], answer["job"]["kind"], answer["job"]["counts"]["completed"]) == (None, "batch", 1)


def test_an_archive_that_cannot_be_unpacked_fails_and_its_batch_ends(stack: Stack) -> None:
    taken = send(stack, "broken", ("broken.zip", packed_zip({"a.txt": b"text"})[:-40]))
    assert stack.ended(taken["batch"]["id"])["counts"]["failed"] == 1
    job = stack.job(taken["archives"][0]["job"])
    assert "could not be unpacked" in job["error"]["message"]
    assert not list(stack.data.glob("archives/*"))


def test_a_new_version_replaces_the_old_one_completely(stack: Stack) -> None:
    [old] = send(stack, "versions", ("plan.txt", b"The plan says Monday."))["data"]
    stack.ended(old["job"])
    [new] = send(stack, "versions", ("plan.txt", b"The plan says Friday."))["data"]
    stack.ended(new["job"])
    view = stack.client.get(f"/documents/{new['id']}").json()
    assert (view["status"], view["version"]) == ("ready", 2)
    assert found(stack, "versions", "What does the plan say?") == {"The plan says Friday."}
    assert stack.client.get(f"/documents/{old['id']}").status_code == 404
    assert not list(stack.data.glob(f"documents/{old['id']}*"))


def test_a_password_opens_an_encrypted_file_with_the_upload_or_with_a_retry(stack: Stack) -> None:
    [given] = send(stack, "locked", ("given.pdf", locked_pdf("sesame")), password="sesame")["data"]
    stack.ended(given["job"])
    assert stack.client.get(f"/documents/{given['id']}").json()["status"] == "ready"
    [later] = send(stack, "locked", ("later.pdf", locked_pdf("sesame", "RC4-128")))["data"]
    assert stack.ended(later["job"])["error"]["code"] == "encrypted"
    again = stack.post(f"/jobs/{later['job']}/retry", {"password": "sesame"}).json()
    assert stack.ended(again["id"])["result"]["status"] == "ready"
    assert "sesame" not in stack.log.read_text()
    assert not list(stack.data.glob("documents/*/pad"))


@pytest.mark.parametrize("name", ["locked.docx", "truncated.pdf", "bomb.docx", "program", "blank.docx", "spaces.txt"])
def test_a_rejected_file_has_a_reason(stack: Stack, name: str) -> None:
    file = ODD[name]
    [document] = send(stack, "odd-files", (name, file.make()))["data"]
    assert stack.ended(document["job"])["status"] == "failed"
    view = stack.client.get(f"/documents/{document['id']}").json()
    assert (view["status"], file.says in view["reason"]) == (file.end, True), view["reason"]


def test_a_bomb_neither_delays_other_documents_nor_kills_the_worker(stack: Stack) -> None:
    before = stack.pid("cpu")
    [bomb, *neighbours] = send(
        stack, "neighbours", ("bomb.pdf", pdf_bomb()), *((f"{n}.txt", f"Neighbour {n}.".encode()) for n in range(5))
    )["data"]
    for neighbour in neighbours:
        assert stack.ended(neighbour["job"])["status"] == "completed"
    assert stack.ended(bomb["job"])["status"] == "failed"
    assert stack.pid("cpu") == before


def test_a_partly_scanned_pdf_is_ready_and_lists_the_pages_without_text(stack: Stack) -> None:
    [document] = send(stack, "scans", ("half.pdf", pdf("Typed.", None, None, "Typed again.")))["data"]
    stack.ended(document["job"])
    view = stack.client.get(f"/documents/{document['id']}").json()
    assert (view["status"], view["pages"], view["pages_done"]) == ("ready", 4, 4)
    assert view["problems"] == [{"pages": "2-3", "text": "is a picture in which OCR found no text"}]


@pytest.mark.slow_fault
def test_a_killed_worker_neither_loses_nor_duplicates_a_member(stack: Stack) -> None:
    members = {f"{number:03}.txt": f"Member number {number}.".encode() for number in range(150)}
    taken = send(stack, "killed", ("many.zip", packed_zip(members)))
    job = taken["archives"][0]["job"]
    wait_until(lambda: len(documents(stack, "killed")) > 5, "some members are entered", every=0.02)
    kill(stack.pid("cpu"))
    batch = stack.ended(taken["batch"]["id"])
    assert batch["counts"]["completed"] == batch["counts"]["total"] == 150
    assert stack.client.get("/collections/killed").json()["documents"] == 150
    assert stack.job(job)["result"]["documents"] == 150
