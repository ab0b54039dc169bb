"""``enginehouse status`` on a healthy stack, with a stopped process, without Redis, and without a stack."""

import json
import re
from collections.abc import Iterator

import psutil
import pytest

from cli.admin.status import find_problems
from testing.fault_rig.processes import find_engine
from testing.stack import QUICK, Stack
from testing.waiting import wait_until
from tests.flows.command import run


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # A process that is stopped is replaced after the time of a lease, and a busy machine takes seconds to start a command.
    slower = {"ENGINEHOUSE_LEASE_SECONDS": "30"}
    stack = Stack(tmp_path_factory.mktemp("status"), token_seconds=0.05, environment=QUICK | slower)
    try:
        yield stack.start()
    finally:
        stack.kill()


def test_the_status_shows_processes_queues_workers_and_failures(own: Stack) -> None:
    failed = own.ended(own.generate("too late" * 20, timeout=1, max_tokens=64)["id"])
    done = run(own, "status", "--json")
    status = json.loads(done.stdout)
    assert (done.returncode, status["problems"]) == (0, [])
    assert {queue["paused"] for queue in status["queues"]} == {worker["drained"] for worker in status["workers"]} == {None}
    assert {"api", "redis", "chroma", "gpu0", "cpu", "io"} <= {item["process"] for item in status["processes"]}
    assert {worker["pool"] for worker in status["workers"]} == {"gpu", "cpu", "io"}
    [gpu] = [worker for worker in status["workers"] if worker["pool"] == "gpu"]
    assert (gpu["model"], gpu["phase"]) == ("echo", "ready")
    [failure] = status["last_failures"]
    assert (failure["job"], failure["code"]) == (failed["id"], failed["error"]["code"])
    assert status["disk"]["free"] > 0
    assert status["redis"]["used"] > 0
    lines = run(own, "status").stdout.splitlines()
    assert f"last failures\t{failed['id']}" in "\n".join(lines)
    assert {line.split("\t")[0] for line in lines} >= {"processes", "resources", "jobs", "queues", "workers"}
    assert "processes\tprocess\tpid\tstate" in lines, "each section begins with the names of its columns"


def test_the_doctor_finds_nothing_on_a_healthy_stack_and_a_frozen_chroma_with_its_mend(own: Stack) -> None:
    healthy = run(own, "doctor")
    assert healthy.returncode == 0, healthy.stdout
    assert healthy.stdout.startswith("No problems found")
    assert "Redis, Chroma, the API and the workers" in healthy.stdout
    process = psutil.Process(own.pid("chroma"))
    process.suspend()
    try:
        ill = run(own, "doctor", "--json")
    finally:
        process.resume()
    assert ill.returncode == 1
    found = json.loads(ill.stdout)
    assert ("chroma", "The Chroma server does not answer.") in [(each["area"], each["problem"]) for each in found]
    assert all(each["fix"] for each in found)


def test_top_shows_rates_and_the_oldest_jobs_once_in_a_pipe(own: Stack) -> None:
    # It runs for a minute unless it is cancelled: a busy machine takes seconds to start the command.
    slow = own.submit_long("still running")
    own.generate("a later job", max_tokens=64)
    wait_until(lambda: own.job(slow)["status"] == "in_progress", "the job runs")
    lines = [line.split("\t") for line in run(own, "top", "--interval", "0.5").stdout.splitlines()]
    assert {line[0] for line in lines} >= {"server", "queues", "workers", "oldest jobs"}
    server = {line[1]: line[2] for line in lines if line[0] == "server"}
    assert int(server["jobs running"]) >= 1
    assert float(server["tokens / s"]) >= 0
    _, *oldest = [line for line in lines if line[0] == "oldest jobs"]
    assert (oldest[0][1], oldest[0][4]) == (slow, "in_progress")
    assert oldest[0][6].startswith("generating on gpu0") or oldest[0][6].startswith("started on gpu0")
    own.client.post(f"/jobs/{slow}/cancel")
    assert own.ended(slow)["status"] == "cancelled"
    shown = json.loads(run(own, "top", "--json", "--interval", "0.2").stdout)
    [queue] = [queue for queue in shown["queues"] if queue["queue"] == "gpu.echo"]
    assert queue == queue | {"waiting": 0, "entered_per_second": 0.0, "paused": False}
    assert (shown["disk"]["free"] > 0, shown["redis"]["used"] > 0) == (True, True), "numbers, not texts"


@pytest.mark.parametrize(
    ("started", "processes", "waiting", "missing"),
    [
        ({"gpu": 1, "io": 3}, ["api"], {}, []),
        ({"gpu": 1, "io": 3, "cpu": 1}, ["api"], {}, ["cpu"]),
        ({"gpu": 1, "io": 3}, ["api", "cpu"], {}, ["cpu"]),
        ({"gpu": 1, "io": 3}, ["gpu12"], {"cpu": 2}, ["cpu"]),
        ({"cpu": 1, "io": 3}, ["gpu12"], {}, ["gpu"]),
        ({"cpu": 1, "io": 3}, [], {"gpu.echo": 1}, ["gpu"]),
    ],
)
def test_a_pool_that_was_left_out_is_no_problem(
    started: dict[str, int], processes: list[str], waiting: dict[str, int], missing: list[str]
) -> None:
    status = {
        "redis": {},
        "started": started,
        "processes": [{"process": name, "pid": 1, "state": "running"} for name in processes],
        "queues": [{"queue": "io", "waiting": 0}, *({"queue": name, "waiting": count} for name, count in waiting.items())],
        "workers": [{"pool": pool, "phase": "ready"} for pool in ("gpu", "cpu", "io") if pool in started and pool not in missing],
    }
    assert find_problems(status) == [f"No {pool} worker is alive." for pool in missing]


def test_jobs_in_a_paused_queue_are_a_problem() -> None:
    queues = [
        {"queue": "cpu", "waiting": 2, "paused": 1.0},
        {"queue": "io", "waiting": 0, "paused": 1.0},
        {"queue": "gpu.echo", "waiting": 2, "paused": None},
    ]
    workers = [{"pool": pool, "phase": "ready"} for pool in ("gpu", "cpu", "io")]
    [problem] = find_problems({"redis": {}, "started": {}, "processes": [], "queues": queues, "workers": workers})
    assert problem.startswith("Queue cpu is paused, and jobs wait in it (2):")


def test_jobs_whose_workers_are_all_drained_are_a_problem() -> None:
    """A drain outlasts restarts, so it can be forgotten."""
    queues = [{"queue": "io", "waiting": 2, "oldest": 5.0, "paused": None}]
    worker = {"worker": "io@host", "pool": "io", "queues": ["io"], "phase": "ready", "drained": 1.0}
    status = {"redis": {}, "started": {}, "processes": [], "queues": queues, "workers": [worker]}
    [problem] = find_problems(status)
    assert "`enginehouse workers resume io@host`" in problem
    assert find_problems({**status, "workers": [worker, {**worker, "drained": None}]}) == []


def test_a_stopped_engine_is_reported_at_once(own: Stack) -> None:
    wait_until(lambda: own.client.get("/health/ready").status_code == 200, "the stack is ready")
    engine = find_engine(own.pid("gpu0"))
    assert engine is not None
    engine.suspend()
    try:
        wait_until(lambda: own.client.get("/health/ready").status_code == 503, "the model is missing")
        assert own.client.get("/health/ready").json()["waiting_for"] == ["model echo (no worker yet)"]
        done = run(own, "status")
        assert done.returncode == 1
        assert re.search(rf"problems\tThe engine of gpu0@\S+ \(pid {engine.pid}\) is frozen\.", done.stdout), done.stdout
    finally:
        engine.resume()
    wait_until(lambda: own.client.get("/health/ready").status_code == 200, "the stack is ready again")


def test_frozen_processes_and_a_missing_redis_are_problems(own: Stack) -> None:
    frozen = {name: psutil.Process(own.pid(name)) for name in ("io", "api")}
    for process in frozen.values():
        process.suspend()
    try:
        expected = ["the io worker", "the first process of the API"]
        wait_until(lambda: own.client.get("/health/ready").json()["waiting_for"] == expected, "both are missed")
        done, found = run(own, "status"), run(own, "doctor", "--json")
        assert (done.returncode, found.returncode) == (1, 1)
        problems = [f"Process {name} (pid {process.pid}) is frozen." for name, process in frozen.items()]
        assert all(f"problems\t{problem}" in done.stdout for problem in problems), done.stdout
        reported = {(each["area"], each["problem"]) for each in json.loads(found.stdout)}
        assert reported >= {("processes", problem) for problem in problems}
        assert ("api", "The server waits for the first process of the API.") in reported
    finally:
        for process in frozen.values():
            process.resume()
    redis = psutil.Process(own.pid("redis"))
    redis.suspend()
    try:
        done = run(own, "status", "--json")
        status = json.loads(done.stdout)
        assert (done.returncode, status["redis"]) == (1, None)
        assert "does not answer" in status["problems"][0]
        assert status["processes"]
    finally:
        redis.resume()
