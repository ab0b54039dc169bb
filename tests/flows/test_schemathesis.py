"""Generated requests by schemathesis find no server error and no answer that ``/openapi.json`` lacks."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.stack import Stack

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
EXAMPLES = 3
# Calls that stop queues and workers come last: the jobs of other calls, and their event streams, would wait.
STOPPING_CALLS = "^/admin/(queues|workers)/"
# A first API key would close the server to all further requests, and limits of an owner would refuse those of other tests.
OTHER_CALLS = "^/admin/(queues/|workers/|keys|owners/)"
SECONDS = 600


@pytest.fixture
def no_webhooks_stay(stack: Stack) -> Iterator[None]:
    """Registered webhooks are deleted, whatever happens: other tests of this stack register up to the limit."""
    yield
    for webhook in stack.client.get("/webhooks").json()["data"]:
        stack.client.delete(f"/webhooks/{webhook['id']}")


@pytest.fixture
def nothing_stays_paused(stack: Stack) -> Iterator[None]:
    yield
    resume_all(stack)


def resume_all(stack: Stack) -> None:
    """End the pauses that generated requests have begun."""
    for queue in stack.client.get("/admin/queues").json()["data"]:
        stack.client.put(f"/admin/queues/{queue['queue']}", json={"paused": False})
    for name in {worker["name"] for worker in stack.client.get("/admin/workers").json()["data"]}:
        stack.client.put(f"/admin/workers/{name}", json={"drained": False})


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.usefixtures("no_webhooks_stay", "nothing_stays_paused")
@pytest.mark.parametrize("phases", ["fuzzing", pytest.param("examples,coverage", marks=pytest.mark.slow_fault)])
def test_generated_requests_get_documented_answers(stack: Stack, tmp_path: Path, phases: str) -> None:
    # The run is bounded by examples and not by time, so the same seed sends the same requests on every machine.
    options = [
        *("--checks", ",".join(CHECKS), "--phases", phases, "--mode", "all"),
        *("--seed", "17", "--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-shrink"),
        *("--workers", "1", "--request-timeout", "70", "--warnings", "off", "--continue-on-failure"),
    ]
    for selection in (("--exclude-path-regex", OTHER_CALLS), ("--include-path-regex", STOPPING_CALLS)):
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{stack.url}/openapi.json",
            *options,
            *selection,
        ]
        log = tmp_path / "schemathesis.log"
        with log.open("wb") as output:
            done = subprocess.run(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
        assert done.returncode == 0, log.read_text()[-20_000:]
    resume_all(stack)
    # Some request unloads the model. The next job loads it again, which other tests need.
    stack.ended(stack.generate("come back")["id"])
