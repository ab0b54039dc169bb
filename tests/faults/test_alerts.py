"""Each alert fires: Prometheus' own test tool evaluates the rules on metrics of real outages."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml  # type: ignore[import-untyped]

from shared.redis_connection import connect
from testing.missing_services import missing_service
from testing.outage_series import Scrape, scrape, series_name, write_test
from testing.repository import REPOSITORY
from testing.stack import QUICK, Stack
from testing.waiting import wait_until
from tests.flows.command import run

RULES = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
TOKEN = "a-token-for-scrapes"

Scene = tuple[Scrape, Scrape]


class Watched:
    """A stack with an API key, whose metrics need no key."""

    def __init__(self, folder: Path) -> None:
        file = folder / "metrics-token"
        file.write_text(TOKEN + "\n")
        settings = QUICK | {"ENGINEHOUSE_METRICS_TOKEN_FILE": str(file), "ENGINEHOUSE_API_WORKERS": "1"}
        self.stack = Stack(folder, token_seconds=0.5, environment=settings).start()
        made = json.loads(run(self.stack, "keys", "create", "--name", "boss", "--owner", "local", "--admin", "--json").stdout)
        self.stack.client.headers["Authorization"] = f"Bearer {made['key']}"
        self.redis = connect(self.stack.redis_url())

    def scrape(self) -> Scrape:
        return scrape(self.stack.url, TOKEN)

    def scene(self, shows: Callable[[Scrape, Scrape], bool], what: str) -> Scene:
        """The first scrape, and the one that shows the outage."""
        first = self.scrape()
        seen: list[Scrape] = []

        def shown() -> bool:
            seen.append(self.scrape())
            return shows(first, seen[-1])

        wait_until(shown, what, every=0.3)
        return first, seen[-1]

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stop a process and its children for a while."""
        process = psutil.Process(self.stack.pid(name))
        tree = [process, *process.children(recursive=True)]
        for one in tree:
            one.suspend()
        try:
            yield
        finally:
            for one in tree:
                one.resume()

    def kill_worker(self) -> None:
        """Kill the gpu worker while it runs a job."""

        def running() -> bool:
            return bool(self.stack.client.get("/jobs", params={"status": "in_progress"}).json()["data"])

        wait_until(running, "the gpu worker runs a job")
        os.kill(self.stack.pid("gpu0"), signal.SIGKILL)


class Gone(http.server.BaseHTTPRequestHandler):
    """A receiver that wants no more webhooks."""

    def do_POST(self) -> None:
        self.send_response(410)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if shutil.which("promtool") is None:
        missing_service("promtool is not installed (apt-get install prometheus)")
    watched = Watched(tmp_path_factory.mktemp("watched"))
    try:
        yield watched
    finally:
        watched.stack.kill()


@pytest.fixture(scope="module")
def healthy(watched: Watched) -> Scrape:
    wait_until(lambda: watched.scrape().value("enginehouse_pool_workers") >= 3, "all workers are alive")
    return watched.scrape()


def expect(folder: Path, healthy: Scrape, outage: tuple[Scrape, ...], *alerts: str) -> None:
    file = folder / "test.yml"
    write_test(file, RULES, healthy, outage, alerts)
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_silent_workers_and_jobs_that_wait(watched: Watched, healthy: Scrape, tmp_path: Path) -> None:
    with watched.frozen("gpu0"):
        job = watched.stack.generate("one token")["id"]
        outage = watched.scene(
            lambda first, last: (
                last.value('enginehouse_pool_workers{instance="api", job="enginehouse", pool="gpu"') == 0
                and last.value("enginehouse_queue_oldest_seconds") > first.value("enginehouse_queue_oldest_seconds") + 1
            ),
            "the gpu worker is missing and its job waits",
        )
    expect(tmp_path, healthy, outage, "WorkersAbsent", "JobsWaitTooLong")
    watched.stack.ended(job)


def test_dying_workers_and_engines(watched: Watched, healthy: Scrape, tmp_path: Path) -> None:
    before = watched.scrape()
    job = watched.stack.generate("a job that kills its worker", max_tokens=64)["id"]
    for _ in range(3):
        watched.kill_worker()
        wait_until(lambda: watched.stack.job(job)["status"] != "in_progress", "the job is taken from the dead worker")
    wait_until(lambda: watched.scrape().value("enginehouse_dead_letters_added_total") == 1, "the job is a dead letter")
    wait_until(lambda: watched.scrape().value("enginehouse_engine_requests_limit") > 0, "the worker is back")
    expect(tmp_path, healthy, (before, watched.scrape()), "WorkersRestarting", "AttemptsLost", "NewDeadLetters")

    # The worker is another process now, so its series begin with it.
    ready = watched.stack._ready_or_dead
    wait_until(ready, "the model is loaded again")
    [engine] = psutil.Process(watched.stack.pid("gpu0")).children()[-1:]
    before = watched.scrape()
    engine.kill()
    outage = watched.scene(lambda _, last: last.value("enginehouse_engine_restarts_total") >= 1, "the restart is counted")
    expect(tmp_path, before, (before, outage[1]), "EngineRestarts")
    wait_until(ready, "the model is loaded again")


def test_deliveries_that_fail_or_are_old(watched: Watched, healthy: Scrape, tmp_path: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Gone) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        before = watched.scrape()
        watched.stack.generate("a", webhook={"url": f"http://127.0.0.1:{receiver.server_port}/"})
        wait_until(
            lambda: (
                watched.scrape().value("enginehouse_deliveries_ended_total") > before.value("enginehouse_deliveries_ended_total")
            ),
            "the delivery is given up",
        )
        receiver.shutdown()
        given_up = watched.scrape()
        closed = receiver.server_port
    expect(tmp_path, healthy, (before, given_up), "DeliveriesFailing")
    watched.stack.generate("a", webhook={"url": f"http://127.0.0.1:{closed}/"})
    outage = watched.scene(lambda _, last: last.value("enginehouse_deliveries_oldest_seconds") > 2, "the delivery is getting old")
    expect(tmp_path, healthy, outage, "DeliveriesOld")


def test_a_full_redis(watched: Watched, healthy: Scrape, tmp_path: Path) -> None:
    limit: Any = watched.redis.config_get("maxmemory")["maxmemory"]
    watched.redis.config_set("maxmemory", int(watched.redis.info("memory")["used_memory"] * 1.1))
    try:
        outage = watched.scrape()
    finally:
        watched.redis.config_set("maxmemory", limit)
    expect(tmp_path, healthy, (outage,), "RedisNearlyFull")


def test_a_silent_index_server(watched: Watched, healthy: Scrape, tmp_path: Path) -> None:
    with watched.frozen("chroma"):
        outage = watched.scrape()
    assert (healthy.value("enginehouse_chroma_up"), outage.value("enginehouse_chroma_up")) == (1, 0)
    expect(tmp_path, healthy, (outage,), "ChromaDown")


def test_a_silent_redis_although_a_key_exists(watched: Watched, healthy: Scrape, tmp_path: Path) -> None:
    with watched.frozen("redis"):
        first = watched.scrape()
        assert watched.stack.client.get("/jobs").status_code == 503
        outage = watched.scrape()
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert watched.stack.client.get("/jobs", headers=token).status_code == 401, "the token allows only scrapes"
    assert watched.stack.client.get("/metrics", headers={"Authorization": "Bearer another-token"}).status_code == 401
    assert first.value("up") == outage.value("up") == 1
    assert first.value("enginehouse_redis_up") == 0
    expect(tmp_path, healthy, (first, outage), "RedisDown", "ApiErrors")


@pytest.mark.parametrize(
    ("series", "value", "alert"),
    [
        ("enginehouse_disk_free_bytes", 5.0, "DiskNearlyFull"),
        ('enginehouse_workers{pool="gpu", model="a", phase="failed"', 1.0, "ModelFailed"),
        ('enginehouse_gpu_xid_errors{worker="gpu0", gpu="0"', 1.0, "GpuError"),
        ('enginehouse_gpu_ecc_errors{worker="gpu0", gpu="0"', 1.0, "GpuError"),
        ('enginehouse_gpu_temperature_celsius{worker="gpu0", gpu="0"', 95.0, "GpuOverheating"),
    ],
)
def test_faults_of_disks_models_and_gpus(healthy: Scrape, tmp_path: Path, series: str, value: float, alert: str) -> None:
    """These need hardware that fails, so only their values are made up."""
    name = next((name for name in healthy.series if name.startswith(series)), series + "}")
    outage = Scrape(healthy.at, {**healthy.series, name: value})
    expect(tmp_path, healthy, (outage,), alert)


def test_a_pool_that_is_left_out_is_missed_when_jobs_wait_for_it(healthy: Scrape, tmp_path: Path) -> None:
    without = Scrape(healthy.at, {**healthy.series, series_name("enginehouse_pool_workers", {"pool": "io"}): 0.0})
    assert without.series.keys() == healthy.series.keys()
    outage = Scrape(healthy.at, {**without.series, series_name("enginehouse_queue_waiting", {"queue": "io"}): 1.0})
    expect(tmp_path, without, (outage,), "WorkersAbsent")


def test_a_server_that_is_gone(watched: Watched, healthy: Scrape, tmp_path: Path) -> None:
    with watched.frozen("api"):
        pass
    assert watched.scrape().value("up") == 1
    watched.stack.stop()
    expect(tmp_path, healthy, (watched.scrape(),), "ScrapeFailed")


def test_each_alert_is_shown_to_fire_and_has_a_severity_and_a_runbook() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    here = Path(__file__).read_text(encoding="utf-8")
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in rules:
        assert f'"{rule["alert"]}"' in here, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert f"### {rule['alert']}\n" in page
