"""One trace from a request over its job to the engine, the parse child and the webhook, received over OTLP by the test; and its ids in JSON
logs."""

import json
import secrets
from collections.abc import Iterator

import pytest

from testing.otlp_receiver import OtlpReceiver, ReceivedSpan
from testing.receiver import Receiver
from testing.stack import QUICK, Stack
from testing.waiting import wait_until
from tests.flows.command import run

SECRET = "a prompt that no span may have"
CALLER = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def traced(otlp: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "ENGINEHOUSE_LOG_FORMAT": "json"}
    stack = Stack(tmp_path_factory.mktemp("traced"), token_seconds=0.05, environment=QUICK | settings)
    try:
        yield stack.start()
    finally:
        stack.kill()


def new_traceparent() -> tuple[str, str]:
    trace = secrets.token_hex(16)
    return trace, f"00-{trace}-{CALLER}-01"


def spans_of(otlp: OtlpReceiver, trace: str, *names: str) -> dict[str, ReceivedSpan]:
    wait_until(lambda: otlp.of_trace(trace).keys() >= set(names), f"the spans {names} are received")
    return otlp.of_trace(trace)


def test_a_generation_is_one_trace_up_to_its_webhook(traced: Stack, otlp: OtlpReceiver) -> None:
    trace, traceparent = new_traceparent()
    with Receiver() as receiver:
        answer = traced.post(
            "/generate", {"prompt": SECRET, "max_tokens": 8, "webhook": {"url": receiver.url}}, traceparent=traceparent
        )
        assert answer.status_code == 202, answer.text
        job = traced.ended(answer.json()["id"])
        wait_until(lambda: receiver.received, "the webhook is delivered")
    names = ("POST /generate", "wait gpu.echo", "generate attempt", "chat echo", "webhook delivery")
    spans = spans_of(otlp, trace, *names)
    request, wait, attempt, engine, delivery = (spans[name] for name in names)
    assert request.parent == CALLER
    assert {span.parent for span in (wait, attempt, delivery)} == {request.id}
    assert engine.parent == attempt.id
    assert [span.service for span in (request, attempt, delivery)] == [
        "enginehouse-api",
        "enginehouse-gpu-worker",
        "enginehouse-io-worker",
    ]
    assert wait.start == pytest.approx(job["created_at"], abs=0.002)
    assert wait.end == pytest.approx(job["started_at"], abs=0.002)
    assert engine.start < engine.events["first_token"] < engine.end
    assert attempt.attributes["enginehouse.job.id"] == job["id"]
    assert attempt.attributes["enginehouse.outcome"] == "completed"
    assert engine.attributes["gen_ai.usage.output_tokens"] == job["result"]["usage"]["completion_tokens"]
    assert receiver.received[0].headers["traceparent"] == f"00-{trace}-{delivery.id}-01"
    assert SECRET not in str(spans)
    log = traced.client.get(f"/jobs/{job['id']}/log").json()
    assert log["trace_id"] == trace


def test_a_document_has_spans_of_its_steps_and_of_its_parse_child(traced: Stack, otlp: OtlpReceiver) -> None:
    trace, traceparent = new_traceparent()
    files = {"file": ("a.txt", SECRET.encode())}
    answer = traced.client.post("/collections/traced/documents", files=files, headers={"traceparent": traceparent})
    answer.raise_for_status()
    for document in traced.client.get("/collections/traced/documents").json()["data"]:
        traced.ended(document["job_id"])
    spans = spans_of(otlp, trace, "ingest attempt", "parsing", "parse child", "chunking", "embedding", "indexing")
    attempt = spans["ingest attempt"]
    assert {spans[name].parent for name in ("parsing", "chunking", "embedding", "indexing")} == {attempt.id}
    assert spans["parse child"].parent == spans["parsing"].id
    assert SECRET not in str(spans)


def test_a_job_that_fails_has_a_failed_span_in_a_trace_that_the_server_begins(traced: Stack, otlp: OtlpReceiver) -> None:
    job = traced.ended(traced.generate("too late" * 20, timeout=1, max_tokens=64)["id"])
    assert job["status"] == "failed"
    trace = traced.client.get(f"/jobs/{job['id']}/log").json()["trace_id"]
    spans = spans_of(otlp, trace, "POST /generate", "generate attempt")
    assert spans["generate attempt"].failed
    assert spans["POST /generate"].parent == ""


def test_probes_and_scrapes_have_no_spans(traced: Stack, otlp: OtlpReceiver) -> None:
    for path in ("/health/live", "/metrics", "/jobs"):
        traced.client.get(path)
    wait_until(lambda: any(span.name == "GET /jobs" for span in otlp.spans), "the span of the last call is received")
    assert not [span.name for span in otlp.spans if "health" in span.name or "metrics" in span.name]


def test_all_lines_are_json_and_those_of_a_job_have_its_ids(traced: Stack) -> None:
    job = traced.ended(traced.generate("too late" * 20, timeout=1, max_tokens=64)["id"])
    log = traced.client.get(f"/jobs/{job['id']}/log").json()

    def lines() -> list[dict[str, str]]:
        entries = [json.loads(line) for line in traced.log.read_text().splitlines()]
        return [entry for entry in entries if entry.get("job") == job["id"]]

    [*_, line] = wait_until(lines, "the end of the attempt is logged")
    assert (line["process"], line["message"]) == ("gpu0", f"job {job['id']} attempt 1: failed")
    assert (line["request_id"], line["trace_id"]) == (log["request_id"], log["trace_id"])
    of_process = run(traced, "logs", "gpu0").stdout.splitlines()
    assert {json.loads(line)["process"] for line in of_process} == {"gpu0"}


def test_the_command_prints_the_log_of_a_job(traced: Stack) -> None:
    job = traced.ended(traced.generate(SECRET, max_tokens=2)["id"])["id"]
    done = run(traced, "logs", job)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first.startswith(f"{job}: request req_")
    assert lines[0].endswith("INFO    submitted to gpu.echo, priority 5")
    assert lines[-1].endswith("INFO    completed")
    assert SECRET not in done.stdout
    assert run(traced, "logs", "job_01m84stetzyr7esggznw5rdjds").returncode == 4
