"""Prometheus' own parser reads the metrics, their values are right, and the documentation lists all of them."""

import math
import re
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from api import metric_families
from shared.jobs.stats import Distribution, QueueState, Stats
from shared.jobs.usage import UsageTotals
from shared.jobs.worker_registry import Worker
from testing.repository import REPOSITORY
from testing.stack import Stack
from testing.waiting import wait_until

Labels = dict[str, str]


def read(stack: Stack) -> dict[str, list[tuple[Labels, float]]]:
    answer = stack.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    found: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def value(stack: Stack, name: str, **labels: str) -> float:
    return sum(value for own, value in read(stack).get(name, []) if labels.items() <= own.items())


def test_submitted_claimed_and_ended_jobs_are_counted(stack: Stack) -> None:
    before = value(stack, "enginehouse_jobs_ended_total", kind="generate", status="completed")
    for _ in range(3):
        stack.ended(stack.generate("count me")["id"])
    assert value(stack, "enginehouse_jobs_ended_total", kind="generate", status="completed") == before + 3
    assert value(stack, "enginehouse_jobs_submitted_total", kind="generate") >= before + 3
    assert value(stack, "enginehouse_jobs_claimed_total", queue="gpu.echo") >= before + 3
    assert value(stack, "enginehouse_redis_up") == 1


def test_engine_metrics_are_reported(stack: Stack) -> None:
    before = value(stack, "enginehouse_engine_tokens_total", model="echo")
    stack.ended(stack.generate("twelve bytes")["id"])
    wait_until(lambda: value(stack, "enginehouse_engine_tokens_total", model="echo") >= before + 12, "the tokens are counted")
    assert value(stack, "enginehouse_engine_requests_limit", model="echo") == 8
    assert value(stack, "enginehouse_workers", pool="gpu", model="echo", phase="ready") == 1


def test_times_of_a_generation_are_observed_by_kind_and_model(stack: Stack) -> None:
    def observed() -> dict[str, float]:
        names = ("wait", "run", "duration", "first_token", "token")
        labels = {"kind": "generate", "model": "echo"}
        return {name: value(stack, f"enginehouse_job_{name}_seconds_count", **labels) for name in names}

    before = observed()
    stack.ended(stack.generate("some letters")["id"])
    assert observed() == {name: count + 1 for name, count in before.items()}
    seconds = value(stack, "enginehouse_job_token_seconds_sum", model="echo")
    tokens = value(stack, "enginehouse_job_token_seconds_count", model="echo")
    assert 0 < seconds / tokens < 1
    assert value(stack, "enginehouse_job_duration_seconds_bucket", kind="generate", model="echo", le="+Inf") >= 1


def test_answers_of_all_processes_are_summed(stack: Stack) -> None:
    labels = {"call": "GET /health/live", "status": "200"}
    before = value(stack, "enginehouse_api_answer_seconds_count", **labels)
    for _ in range(20):
        # Either of the two processes may accept a new connection.
        stack.client.get("/health/live", headers={"Connection": "close"})
    assert value(stack, "enginehouse_api_answer_seconds_count", **labels) == before + 20
    paths = {labels["call"] for labels, _ in read(stack)["enginehouse_api_answer_seconds_count"]}
    assert not [path for path in paths if "job_" in path], "ids in labels would create series without bound"


def test_the_dashboard_and_the_alerts_query_reported_metrics(stack: Stack) -> None:
    stack.ended(stack.generate("so that each family has a sample")["id"])
    text = stack.client.get("/metrics").text
    reported = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)) | set(re.findall(r"^(enginehouse_\w+)", text, re.MULTILINE))
    deploy = REPOSITORY / "deploy"
    for file in (deploy / "grafana" / "enginehouse.json", deploy / "prometheus" / "alerts.yml"):
        queried = set(re.findall(r"\benginehouse_[a-z_]+", file.read_text(encoding="utf-8")))
        # A histogram without observations has a type and no buckets.
        named = {name if name in reported else re.sub("_(bucket|count|sum)$", "", name) for name in queried}
        assert named <= reported, file
        assert len(queried) > 10


def test_every_metric_is_documented() -> None:
    gpu = dict.fromkeys(["memory_used", "memory_total", "utilisation", "temperature", "power", "ecc_errors"], 1) | {
        "index": 0,
        "xid_errors": [79],
    }
    engine = dict.fromkeys([key for key, _, _ in (*metric_families.ENGINE_GAUGES, *metric_families.ENGINE_COUNTERS)], 1)
    worker = Worker(
        id="g/1", name="g", pool="gpu", machine="m", pid=1, started=0, queues=(), slots=1, model="a", engine=engine, gpus=(gpu,)
    )
    observed = Distribution(("generate", "a"), ((1.0, 1), (math.inf, 1)), 0.5)
    one_label = {"delivery": [replace(observed, labels=("delivered",))], "fetch": [replace(observed, labels=("fetched",))]}
    times = [key for key, *_ in metric_families.HISTOGRAMS]
    families = [
        metric_families.redis_metric(up=True),
        *metric_families.disk_metrics(2, 1),
        *metric_families.redis_memory_metrics({"used_memory": 1, "maxmemory": 2}),
        metric_families.chroma_metric(up=True),
        *metric_families.job_metrics(
            Stats(
                1,
                1,
                0,
                0,
                {"gpu.a": QueueState(1, 5, 1)},
                {"ended generate failed": 1, "documents ready": 1, "fetches fetched": 1},
                {"ocr": 1},
            )
        ),
        *metric_families.histogram_metrics({key: [observed] for key in times} | one_label, gen_ai=False),
        *metric_families.worker_metrics([worker]),
        *metric_families.usage_metrics({"ada": UsageTotals()}),
    ]
    assert all(
        family.samples for family in families if family.name not in ("enginehouse_jobs_submitted", "enginehouse_jobs_claimed")
    )
    names = {family.name + "_total" * (family.type == "counter") for family in families} | {"enginehouse_api_answer_seconds"}
    page = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
    [section] = re.findall(r"^#+ Metrics$(.*?)(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert names == {name for row in rows for name in re.findall(r"`(enginehouse_\w+)`", row.split("|")[1])}
