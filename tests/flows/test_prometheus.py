"""A real Prometheus scrapes a stack: it accepts the rules, and every query of the dashboard has values of jobs that ran."""

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from cli.local.redis_server import free_port
from testing.missing_services import missing_service
from testing.receiver import Receiver
from testing.repository import REPOSITORY
from testing.stack import Stack
from testing.waiting import wait_until

DEPLOY = REPOSITORY / "deploy"
# These are about hardware that the stack does not have, or about a moment that may be over before a scrape.
MAY_BE_EMPTY = ("enginehouse_gpu_", "enginehouse_documents_in_progress", "enginehouse_engine_cache_use_ratio")


@pytest.fixture(scope="module")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    if shutil.which("prometheus") is None:
        missing_service("prometheus is not installed (apt-get install prometheus)")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    configuration = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(DEPLOY / "prometheus" / "alerts.yml")],
        "scrape_configs": [{"job_name": "enginehouse", "static_configs": [{"targets": [stack.url.removeprefix("http://")]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                yield client
        finally:
            process.kill()
            process.wait()


def query(prometheus: httpx2.Client, expression: str) -> list[float]:
    """The values of an expression now; empty while Prometheus starts."""
    try:
        answer: Any = prometheus.get("/api/v1/query", params={"query": expression}).json()
    except (httpx2.HTTPError, ValueError):
        return []
    assert answer["status"] == "success", (expression, answer)
    return [float(each["value"][1]) for each in answer["data"]["result"]]


def run_everything(stack: Stack, number: int) -> None:
    with Receiver() as receiver:
        job = stack.generate("a few letters", webhook={"url": receiver.url})["id"]
        stack.ended(job)
        wait_until(lambda: receiver.received, "the webhook is delivered")
    stack.client.post("/collections/queried/documents", files={"file": (f"{number}.txt", b"page %d" % number)}).raise_for_status()
    for document in stack.client.get("/collections/queried/documents").json()["data"]:
        stack.ended(document["job_id"])
    fetched = stack.post("/collections/queried/documents", {"urls": [f"{stack.url}/jobs/{job}"]})
    stack.ended(fetched.json()["batch"]["id"])
    stack.post("/collections/queried/search", {"query": "page"}, Prefer="wait=60").raise_for_status()


def test_every_query_of_the_dashboard_has_values(stack: Stack, prometheus: httpx2.Client) -> None:
    run_everything(stack, 1)
    counters = ("delivery_seconds_count", "pages_read_total", "fetches_ended_total")
    scraped = " * ".join(f"sum(enginehouse_{name})" for name in counters)
    before = wait_until(lambda: query(prometheus, scraped), "Prometheus has scraped the first jobs")
    run_everything(stack, 2)
    wait_until(lambda: query(prometheus, scraped) > before, "it has scraped the others too")
    dashboard = json.loads((DEPLOY / "grafana" / "enginehouse.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 30
    for expression in expressions:
        if any(name in expression for name in MAY_BE_EMPTY):
            assert query(prometheus, expression) is not None
        else:
            # On a busy machine, a report of a worker can be late for a scrape.
            wait_until(lambda query_=expression: any(map(math.isfinite, query(prometheus, query_))), f"{expression} has a value")


def test_prometheus_evaluates_every_alert(prometheus: httpx2.Client) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    prometheus_rules = wait_until(evaluated, "the rules are evaluated")
    assert len(prometheus_rules) > 10
    assert [rule for rule in prometheus_rules if rule["health"] != "ok"] == []
