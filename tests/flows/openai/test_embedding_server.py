"""The embedding server of a stack with a real model: one process holds the model, and a killed one is replaced under an ingest."""

from pathlib import Path

import pytest

from testing.fault_rig.processes import kill, process_tree, suspended
from testing.stack import MINILM, Stack
from testing.waiting import wait_until

pytestmark = [pytest.mark.model, pytest.mark.slow_fault, pytest.mark.timeout(700)]


def test_an_ingest_goes_on_when_the_embedding_server_is_killed(model_stack: Stack) -> None:
    stack = model_stack
    stack.post("/collections", {"name": "rules", "embedding_model": MINILM["name"]}).raise_for_status()
    upload(stack, "first.txt", "The archive opens at nine.")
    killed = stack.pid("embedder")
    with suspended([killed]):
        document = upload(stack, "second.txt", "The boilers are blue.", wait=False)
        wait_until(lambda: status(stack, document) == "embedding", "the ingest waits for the embedding server")
        kill(killed)
    job = stack.ended(stack.client.get(f"/documents/{document}").json()["job_id"])
    assert (job["status"], job["attempt"]) == ("completed", 1)
    assert status(stack, document) == "ready"
    found = stack.post("/collections/rules/search", {"query": "Which colour do boilers have?"}, Prefer="wait=60").json()
    assert found["data"][0]["document_id"] == document
    assert stack.pid("embedder") != killed
    assert {name for name in ("embedder", "cpu", "io") if has_torch(stack.pid(name))} == {"embedder"}


def upload(stack: Stack, name: str, text: str, *, wait: bool = True) -> str:
    [document] = stack.client.post("/collections/rules/documents", files={"file": (name, text.encode())}).json()["data"]
    if wait:
        assert stack.ended(document["job_id"])["status"] == "completed"
    return str(document["id"])


def status(stack: Stack, document: str) -> str:
    return str(stack.client.get(f"/documents/{document}").json()["status"])


def has_torch(pid: int) -> bool:
    return any("libtorch" in Path(f"/proc/{process.pid}/maps").read_text() for process in process_tree(pid))
