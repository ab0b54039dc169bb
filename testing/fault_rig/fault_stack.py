"""Fault stack: a stack with its own Redis, a proxy in front of that, extra workers and a ledger of accepted jobs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from cli.local.redis_server import RedisServer, start_redis
from shared.jobs.event_streams import StreamEvent, read_events
from shared.jobs.models import Job
from shared.jobs.queries import read_job
from shared.jobs.queue_names import generation_queue
from shared.redis_connection import PREFIX
from testing.fault_rig.ledger import Ledger, wait_until_none
from testing.fault_rig.processes import find_engine, has_word, is_alive, kill, process_tree, processes_of_folder
from testing.fault_rig.proxy import Proxy
from testing.repository import REPOSITORY
from testing.stack import QUICK, Stack
from testing.waiting import LONG_SECONDS, wait_until

TEXT = "the quick brown fox jumps over the lazy dog"
TOKEN_SECONDS = 0.05
PRELOAD = Path(__file__).parent / "preload"
MORE_DESCRIPTORS = 60

DEFAULT, SECOND = "echo", "second"


class FaultStack:
    """A stack with the echo engine, which runs ``slots`` jobs at once and takes 50 ms for a token.

    The model ``echo`` is served from the start, ``second`` only by workers that a test starts. ``redis_folder`` may be on a
    disk of its own.
    """

    def __init__(
        self, folder: Path, *, slots: int = 8, environment: Mapping[str, str] | None = None, redis_folder: Path | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.slots = slots
        self.redis: RedisServer = start_redis(_created(redis_folder or folder / "redis"))
        self.proxy = Proxy(self.redis.port)
        self.url = self.redis.url.replace(f":{self.redis.port}/", f":{self.proxy.port}/")
        # No health checks: a Redis that cannot write refuses PING but can still be read.
        self.direct: redis.Redis = redis.Redis.from_url(
            self.redis.url, decode_responses=True, socket_timeout=5, retry=Retry(ConstantBackoff(0.2), 5)
        )
        self.ledger = Ledger(folder / "ledger.jsonl")
        # A checkout that is not installed is found by the PYTHONPATH of the tests.
        search_path = os.pathsep.join([str(PRELOAD), *filter(None, [os.environ.get("PYTHONPATH")])])
        # A model stays with its worker, whatever is killed, unless a test sets otherwise.
        more = {"PYTHONPATH": search_path, **QUICK, "ENGINEHOUSE_LOAD_ON_DEMAND": "0", **(environment or {})}
        self.server = Stack(folder, token_seconds=TOKEN_SECONDS, environment=more)
        self.server.models.write_text(json.dumps(_models(slots)))
        self.client = self.server.client
        self.extra_workers: list[ExtraWorker] = []
        self._descriptors: dict[int, int] = {}

    # Start, stop, repair

    def start(self) -> "FaultStack":
        self.server.start("--redis", self.url)
        self.client.get("/health/ready")
        return self

    def close(self) -> None:
        for worker in self.extra_workers:
            worker.kill()
        self.server.kill()
        self.direct.close()
        self.proxy.close()
        self.redis.stop()

    def heal(self) -> None:
        """Undo every fault that is still in force and wait until the stack is ready; restart it if it does not recover."""
        self.proxy.heal()
        if self.redis.process.poll() is not None:
            self.start_redis()
        kill(self.redis.process.pid, signal.SIGCONT)
        for process in processes_of_folder(self.server.data):
            kill(process.pid, signal.SIGCONT)
        for worker in self.extra_workers:
            worker.kill()
        self.extra_workers.clear()
        process = self.server.process
        assert process is not None
        try:
            assert process.poll() is None
            wait_until(self.is_ready, "the stack is ready again")
        except AssertionError:
            self.restart()

    def restart(self) -> None:
        """Kill the whole stack (not Redis) and start it."""
        self.kill_stack()
        self.start()

    def kill_stack(self) -> None:
        """Kill the launcher and all its descendants at once."""
        assert self.server.process is not None
        for process in process_tree(self.server.process.pid):
            kill(process.pid)
        self.server.process.wait(LONG_SECONDS)
        wait_until_none(lambda: processes_of_folder(self.server.data), "processes of the killed stack")

    def is_ready(self) -> bool:
        try:
            return bool(self.client.get("/health/ready", timeout=5).status_code == 200)
        except httpx2.HTTPError:
            return False

    # Redis

    def kill_redis(self) -> None:
        self.redis.kill()

    def start_redis(self) -> None:
        self.redis = start_redis(self.redis.folder, self.redis.port)

    # Processes

    def pid_of(self, name: str) -> int:
        """The process id of a living process of the stack, such as ``gpu0``. Waits while that is being restarted."""

        def living() -> int | None:
            with suppress(KeyError, ValueError, FileNotFoundError, psutil.NoSuchProcess):
                pid = self.server.pid(name)
                return pid if is_alive(psutil.Process(pid)) else None
            return None

        return int(wait_until(living, f"{name} runs") or 0)

    def engine_process(self) -> psutil.Process:
        found = wait_until(lambda: find_engine(self.pid_of("gpu0")), "an engine process")
        assert found is not None
        return found

    def start_worker(self, number: int, *, model: str = DEFAULT, environment: Mapping[str, str] | None = None) -> "ExtraWorker":
        """Start one more model worker, and wait until it is ready."""
        worker = ExtraWorker(self, number, model, environment or {})
        self.extra_workers.append(worker)
        return worker.start()

    def worker_pids(self) -> dict[str, int]:
        return {name: self.pid_of(name) for name in ("gpu0", "cpu", "io")}

    # Jobs

    def submit_job(self, prompt: str = TEXT, **fields: Any) -> str:
        """Submit a generation, which must be accepted. Returns its id."""
        answer = self.request_job(prompt, **fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def request_job(self, prompt: str = TEXT, *, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """Request a generation. If it is accepted, it is recorded in the ledger."""
        answer = self.client.post("/generate", json={"prompt": prompt, "max_tokens": 500, **fields}, headers=dict(headers or {}))
        if answer.status_code == 202 and answer.json()["id"] not in self.ledger.open_jobs:
            self.ledger.record_accepted(answer.json()["id"], text=prompt[: fields.get("max_tokens", 500)])
        return answer

    def submit_through_outage(self, prompt: str = TEXT, **fields: Any) -> str:
        """Submit as a client does: repeat after a 503 or a broken connection."""

        def submitted() -> str | None:
            try:
                answer = self.request_job(prompt, **fields)
            except httpx2.HTTPError:
                return None
            assert answer.status_code in (202, 503), answer.text
            return str(answer.json()["id"]) if answer.status_code == 202 else None

        return str(wait_until(submitted, "a job is accepted", every=0.2))

    def start_jobs(self, count: int, prompt: str = TEXT, **fields: Any) -> list[str]:
        """Submit ``count`` generations, and wait until each has its first token."""
        jobs = [self.submit_job(prompt, **fields) for _ in range(count)]
        wait_until(lambda: all(self.read_job(job).first_token_at for job in jobs), "all have a first token")
        return jobs

    def upload_file(self, collection: str, name: str, data: bytes, *, ends: tuple[str, ...] = ("completed",)) -> tuple[str, str]:
        """Upload one file. Returns the ids of its document and of its job."""
        answer = self.client.post(f"/collections/{collection}/documents", files={"file": (name, data)})
        assert answer.status_code == 202, answer.text
        [document] = answer.json()["data"]
        self.ledger.record_accepted(document["job"], ends=ends)
        return document["id"], document["job"]

    def read_job(self, job: str) -> Job:
        """The job's record, read around the proxy."""
        found = read_job(self.direct, job)
        assert found is not None, f"{job} has no record"
        return found

    def read_events(self, job: str) -> list[StreamEvent]:
        return read_events(self.direct, job, limit=100_000)

    def wait_for_end(self, job: str, seconds: float = LONG_SECONDS) -> Job:
        """Wait until the job has ended. Returns its record."""
        wait_until(lambda: self.read_job(job).status.final, f"{job} has ended", seconds=seconds)
        return self.read_job(job)

    def count_in_progress(self, jobs: list[str]) -> int:
        with self.direct.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.hget(f"{PREFIX}job:{job}", "status")
            return pipeline.execute().count("in_progress")

    def count_wakeups(self, model: str = DEFAULT) -> int:
        return int(str(self.direct.llen(generation_queue(model))))

    # Invariants

    def check_invariants(self, seconds: float = LONG_SECONDS) -> None:
        """Check I1 to I5. The faults must be over."""
        self.ledger.check_invariants(self.direct, seconds)
        wait_until(self.is_ready, "the stack is ready again", every=0.1)
        self._check_slots()
        self._check_processes()
        self.ledger.check_invariants(self.direct, seconds)

    def _check_slots(self) -> None:
        """I4: the workers of the default model together run one job on each slot."""
        workers = 1 + sum(worker.model == DEFAULT and worker.is_alive() for worker in self.extra_workers)
        # They run longer than it takes to submit them on a busy machine, and are cancelled once they were seen to run.
        jobs = [self.submit_job(TEXT * 10) for _ in range(workers * self.slots)]
        wait_until(lambda: self.count_in_progress(jobs) == len(jobs), f"I4: {len(jobs)} jobs run at once, one on each slot")
        for job in jobs:
            self.ledger.allow_end(job, "cancelled", "completed")
            self.client.post(f"/jobs/{job}/cancel")

    def _check_processes(self) -> None:
        """I4: no process outlives its parent, each model worker has one engine, and file descriptors do not accumulate."""

        def strays() -> list[str]:
            assert self.server.process is not None
            roots = [self.server.process.pid, *(worker.process.pid for worker in self.extra_workers if worker.process)]
            ours = {process.pid for root in roots for process in process_tree(root)}
            found = [f"orphan {process.pid}" for process in processes_of_folder(self.server.data) if process.pid not in ours]
            for root in [self.pid_of("gpu0"), *(worker.pid for worker in self.extra_workers if worker.is_alive())]:
                engines = [process for process in process_tree(root) if has_word(process, "workers.gpu.engine")]
                found += [] if len(engines) == 1 else [f"{len(engines)} engines under {root}"]
            return found

        with suppress(psutil.NoSuchProcess):
            wait_until_none(strays, "I4: unexpected processes")
        assert self.server.process is not None
        for process in process_tree(self.server.process.pid):
            with suppress(psutil.Error):
                number = process.num_fds()
                first = self._descriptors.setdefault(process.pid, number)
                assert number <= first + MORE_DESCRIPTORS, f"I4: {process.cmdline()} had {first} descriptors and has {number}"


class ExtraWorker:
    """A model worker outside the stack's supervisor, so it is not restarted."""

    def __init__(self, stack: FaultStack, number: int, model: str, environment: Mapping[str, str]) -> None:
        self.model = model
        self.name = f"gpu{number}@"
        self._stack = stack
        state = json.loads((stack.server.data / "state.json").read_text())
        self._environment = {**stack.server.environment, "ENGINEHOUSE_CHROMA_URL": state["chroma"], **environment}
        self._command = [sys.executable, "-m", "cli.main", "worker", "gpu", "--number", str(number), "--model", model]
        self._command += ["--data", str(stack.server.data), "--models", str(stack.server.models), "--redis", stack.url]
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> "ExtraWorker":
        with (self._stack.server.folder / "more.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=self._environment
            )
        return self

    def start(self) -> "ExtraWorker":
        self.launch()
        wait_until(self.is_ready, f"worker {self.name} is ready")
        return self

    def is_ready(self) -> bool:
        worker = self.registration()
        return worker is not None and worker["phase"] == "ready"

    def registration(self) -> dict[str, Any] | None:
        """The registry entry of the living process."""
        with suppress(redis.RedisError):
            for name, text in self._stack.direct.hgetall(f"{PREFIX}workers").items():  # type: ignore[union-attr]
                if name.startswith(self.name) and name.endswith(f"/{self.pid}"):
                    return dict(json.loads(text))
        return None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        if self.process is not None:
            for process in process_tree(self.process.pid):
                kill(process.pid)
            self.process.wait(LONG_SECONDS)


@contextmanager
def open_fault_stack(folder: Path, **options: Any) -> Iterator[FaultStack]:
    """A running stack, which is killed after the block."""
    stack = FaultStack(folder, **options)
    try:
        yield stack.start()
    finally:
        stack.close()


def _models(slots: int) -> list[dict[str, Any]]:
    engine = {"url": f"echo:{TOKEN_SECONDS}", "engine": "echo", "max_in_flight": slots, "max_tokens": 500}
    return [
        {"name": DEFAULT, "default": True, **engine},
        {"name": SECOND, **engine},
        {"name": "hash", "url": "hash:384", "task": "embed"},
    ]


def _created(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
