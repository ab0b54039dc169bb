"""A cluster of two API hosts, four gpu hosts, two cpu hosts and an io host, which are killed and added under load."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from cli.local.redis_server import free_port, start_redis
from shared.jobs.models import Outcome
from shared.jobs.queries import read_job
from shared.redis_connection import PREFIX
from testing.chroma_server import ChromaServer
from testing.fault_rig.hosts import Host, hosts_are_possible
from testing.fault_rig.ledger import Ledger
from testing.stack import QUICK
from testing.waiting import LONG_SECONDS, wait_until

TEXT = "the quick brown fox jumps over the lazy dog"
MODELS: list[dict[str, Any]] = [
    {"name": "echo", "url": "echo:0.05", "engine": "echo", "max_in_flight": 4, "max_tokens": 500, "default": True},
    {"name": "hash", "url": "hash:384", "task": "embed"},
]
JOBS, FILES = 160, 24


class Cluster:
    """Hosts around one Redis and one Chroma server. The API, cpu and io hosts share a data folder; gpu hosts have their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "redis").mkdir()
        self.redis = start_redis(folder / "redis")
        self.direct = redis.Redis.from_url(self.redis.url, decode_responses=True)
        self.chroma = ChromaServer(folder / "chroma", free_port())
        self.chroma.start()
        (folder / "models.json").write_text(json.dumps(MODELS))
        self.port = free_port()
        self.hosts: dict[str, Host] = {}
        self.ledger = Ledger(folder / "ledger.jsonl")
        self._clients: dict[str, httpx2.Client] = {}
        self._turn = itertools.count()

    def add(self, name: str, *arguments: str, address: str = "") -> Host:
        pool = arguments[-1]
        data = self.folder / (f"data-{name}" if pool == "gpu" else "data")
        environment = {
            **QUICK,
            "ENGINEHOUSE_ALLOW_ROOT": "1",
            "ENGINEHOUSE_DATA": str(data),
            "ENGINEHOUSE_MODELS_FILE": str(self.folder / "models.json"),
            "REDIS_URL": self.redis.url,
            "ENGINEHOUSE_CHROMA_URL": self.chroma.url,
            "ENGINEHOUSE_API_WORKERS": "1",
            "ENGINEHOUSE_IO_WORKERS": "4",
            # An API host that is killed during an upload leaves its batch open.
            "ENGINEHOUSE_SEAL_SECONDS": "5",
            "ENGINEHOUSE_PORT": str(self.port),
            "ENGINEHOUSE_HOST": address or "127.0.0.1",
            "ENGINEHOUSE_ALLOWED_HOSTS": "127.0.0.2,127.0.0.3,127.0.0.4",
        }
        self.hosts[name] = host = Host(name, list(arguments), environment, self.folder)
        if address:
            self._clients[name] = httpx2.Client(base_url=f"http://{address}:{self.port}", timeout=20)
        return host

    def kill(self, name: str) -> None:
        client = self._clients.pop(name, None)
        self.hosts.pop(name).kill()
        if client is not None:
            client.close()

    def call(self, method: str, path: str, **fields: Any) -> httpx2.Response:
        """Call one API host after the other until one answers, as a load balancer does."""

        def answered() -> httpx2.Response | None:
            clients = list(self._clients.values())
            try:
                response = clients[next(self._turn) % len(clients)].request(method, path, **fields)
            except (httpx2.HTTPError, RuntimeError):  # RuntimeError: the test has just closed it
                return None
            return response if response.status_code != 503 else None

        response = wait_until(answered, f"an API host answers {method} {path}", seconds=LONG_SECONDS, every=0.1)
        assert response.status_code < 300, response.text
        return response

    def workers(self) -> Counter[str]:
        """Hosts of the live workers."""
        return Counter(name.partition("@")[2].partition("/")[0] for name in self.direct.hkeys(f"{PREFIX}workers"))

    def close(self) -> None:
        for name in list(self.hosts):
            self.kill(name)
        self.chroma.kill()
        self.direct.close()
        self.redis.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if not hosts_are_possible():
        pytest.skip("hosts are namespaces, which need root")
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_hosts_that_are_killed_and_added_under_load_lose_no_job(cluster: Cluster) -> None:
    gpu, cpu, io = ("worker", "gpu"), ("worker", "cpu"), ("worker", "io")
    cluster.add("api-1", "api", address="127.0.0.2")
    cluster.add("api-2", "api", address="127.0.0.3")
    for number in range(1, 5):
        cluster.add(f"gpu-{number}", *gpu)
    for name, command in (("cpu-1", cpu), ("cpu-2", cpu), ("io-1", io)):
        cluster.add(name, *command)
    everyone = {*(f"gpu-{number}" for number in range(1, 5)), "cpu-1", "cpu-2", "io-1"}
    wait_until(lambda: set(cluster.workers()) == everyone, "all hosts have a worker", seconds=3 * LONG_SECONDS)
    cluster.call("GET", "/health/live")

    accepted: dict[str, str] = {}
    documents: list[str] = []

    def submit() -> None:
        for number in range(JOBS):
            prompt = f"{number} {TEXT}"
            headers = {"Idempotency-Key": f"job-{number}"}
            body = {"prompt": prompt, "max_tokens": 500}
            job = cluster.call("POST", "/generate", json=body, headers=headers).json()["id"]
            accepted[job] = prompt
            cluster.ledger.record_accepted(job, text=prompt)

    def upload() -> None:
        for number in range(FILES):
            text = " ".join(f"{number} {line} {TEXT}." for line in range(40))
            files = {"file": (f"{number}.txt", text.encode())}
            [document] = cluster.call("POST", "/collections/machine/documents", files=files).json()["data"]
            documents.append(document["id"])

    threads = [threading.Thread(target=submit), threading.Thread(target=upload)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(accepted) >= JOBS // 8, "jobs are running", seconds=LONG_SECONDS)

    # Each loss is followed by a host in its place, with another name.
    cluster.kill("gpu-1")
    cluster.add("gpu-5", *gpu)
    cluster.kill("api-1")
    cluster.add("api-3", "api", address="127.0.0.4")
    wait_until(lambda: len(documents) >= FILES // 3, "documents are uploaded", seconds=LONG_SECONDS)
    cluster.kill("cpu-1")
    cluster.add("cpu-3", *cpu)
    cluster.kill("io-1")
    cluster.add("io-2", *io)
    wait_until(lambda: "gpu-5" in cluster.workers(), "the new gpu host works", seconds=2 * LONG_SECONDS)
    # An orderly exit costs no attempt.
    assert cluster.hosts.pop("gpu-2").stop() == 0
    for thread in threads:
        thread.join(3 * LONG_SECONDS)
        assert not thread.is_alive()

    assert len(accepted) == JOBS
    assert len(set(documents)) == FILES
    cluster.ledger.check_invariants(cluster.direct, 3 * LONG_SECONDS)
    hosts, outcomes = Counter[str](), Counter[Outcome | None]()
    for job in accepted:
        record = read_job(cluster.direct, job)
        assert record is not None
        outcomes.update(attempt.outcome for attempt in record.attempts)
        hosts.update((attempt.worker or "").partition("@")[2].partition("/")[0] for attempt in record.attempts)
    assert outcomes[Outcome.COMPLETED] == JOBS
    assert outcomes[Outcome.LOST] <= 4, "at most the jobs of the gpu host that was killed"
    assert {"gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5"} <= set(hosts), hosts

    def states() -> list[str]:
        return [cluster.call("GET", f"/documents/{document}").json()["status"] for document in documents]

    wait_until(lambda: set(states()) == {"ready"}, "all documents are ready", seconds=3 * LONG_SECONDS, every=1)
    wait_until(lambda: {"io-2", "cpu-2", "cpu-3"} <= set(cluster.workers()), "the other new hosts work", seconds=2 * LONG_SECONDS)
    found = cluster.call("POST", "/collections/machine/search", json={"query": "quick fox"}, headers={"Prefer": "wait=60"})
    assert found.json()["data"]
