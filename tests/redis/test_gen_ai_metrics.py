"""The ``gen_ai_server_*`` metrics of OpenTelemetry's conventions: opted into by its variable, with its names, labels and buckets."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.jobs.transitions import Event
from shared.settings import Settings
from shared.settings_sources import from_environment
from tests.conftest import Clock, JobSystem

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
# Bounds that the conventions recommend, in seconds. Ours may have more.
BOUNDS = {
    "gen_ai_server_request_duration_seconds": [
        0.01,
        0.02,
        0.04,
        0.08,
        0.16,
        0.32,
        0.64,
        1.28,
        2.56,
        5.12,
        10.24,
        20.48,
        40.96,
        81.92,
    ],
    "gen_ai_server_time_to_first_token_seconds": [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    ],
    "gen_ai_server_time_per_output_token_seconds": [
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5),
    ],
}

Samples = Mapping[str, list[tuple[Mapping[str, str], float]]]


def read_samples(settings: Settings) -> Samples:
    """The samples of ``/metrics`` by name."""
    text = create_app(settings).test_client().get("/metrics").get_data(as_text=True)
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def run_jobs(system: JobSystem, clock: Clock) -> None:
    """A generation with its first token after 3 s and its end after 7 s, another kind of job, and a generation that fails."""
    for kind, status in (("generate", Status.COMPLETED), ("ingest", Status.COMPLETED), ("generate", Status.FAILED)):
        submission = Submission(kind=kind, queue="q", spec={}, owner="ada", model="gemma" if kind == "generate" else "")
        job = system.submitter.submit_job(submission).id
        clock.advance(1)
        assert system.transitions.claim("q", "w", job) is not None
        clock.advance(2)
        if kind == "generate":
            delta = Event(job=job, attempt=1, index=1, type="delta", data={"text": "x"})
            assert system.transitions.append_events([delta]) == ["ok"]
        clock.advance(4)
        error = {"code": "x", "message": "x"} if status is Status.FAILED else None
        result = None if error else {}
        token_seconds = 0.2 if kind == "generate" and not error else None
        ended = system.transitions.finish((job, 1), status, result=result, error=error, token_seconds=token_seconds)
        assert ended == "ok"


def test_model_times_have_the_names_of_the_conventions(
    system: JobSystem, settings: Settings, clock: Clock, redis_client: redis.Redis
) -> None:
    run_jobs(system, clock)
    samples = read_samples(replace(settings, semantic_conventions="http, gen_ai_latest_experimental"))
    labels = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "enginehouse", "gen_ai_request_model": "gemma"}
    expected = {
        "gen_ai_server_request_duration_seconds": 7.0,
        "gen_ai_server_time_to_first_token_seconds": 3.0,
        "gen_ai_server_time_per_output_token_seconds": 0.2,
    }
    for name, seconds in expected.items():
        # Jobs of other kinds and those that failed have no time to compare.
        assert samples[f"{name}_count"] == [(labels, 1.0)], name
        assert samples[f"{name}_sum"] == [(labels, pytest.approx(seconds))]
        buckets = {float(each["le"]): number for each, number in samples[f"{name}_bucket"]}
        assert set(BOUNDS[name]) <= buckets.keys(), name
        assert {number for bound, number in buckets.items() if bound < seconds} <= {0.0}
        assert {number for bound, number in buckets.items() if bound >= seconds} == {1.0}
    own = samples["enginehouse_job_first_token_seconds_sum"]
    assert [value for each, value in own if each["model"] == "gemma"] == [pytest.approx(3.0)]


def test_without_the_variable_there_are_only_our_names(system: JobSystem, settings: Settings, clock: Clock) -> None:
    run_jobs(system, clock)
    assert not [name for name in read_samples(settings) if name.startswith("gen_ai")]
    assert from_environment({OPT_IN: "gen_ai_latest_experimental"}).gen_ai_metrics
    assert not from_environment({OPT_IN: "http"}).gen_ai_metrics
