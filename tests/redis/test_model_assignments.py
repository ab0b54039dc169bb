"""Model assignments: a desired model survives its worker, and scheduling never unloads a model that has work."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.models import Status
from shared.jobs.queue_names import text_queue
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

PATIENCE_MS = 60_000


class Cluster:
    """Model assignments, workers and jobs with one clock."""

    def __init__(self, client: redis.Redis, system: JobSystem, clock: Clock) -> None:
        self.client, self.system, self.clock = client, system, clock
        self.assignments = ModelAssignments(client, clock=clock)
        self.worker_registry = WorkerRegistry(client, clock=clock)
        self.workers: dict[str, Worker] = {}

    def add_worker(self, name: str, model: str, loadable_models: Sequence[str] = ("a", "b", "c"), **fields: Any) -> None:
        """Add a live worker that has loaded its desired model."""
        self.assignments.register(name, model, loadable_models=loadable_models)
        self.workers[name] = Worker(
            id=f"{name}/1",
            name=name,
            pool="gpu",
            machine="m",
            pid=1,
            started=0.0,
            queues=(f"gpu.{model}",) if model else (),
            slots=4,
            model=model,
            **{"phase": "ready" if model else "unloaded", **fields},
        )
        self.heartbeat(name)

    def heartbeat(self, name: str, **changes: Any) -> str | None:
        self.workers[name] = replace(self.workers[name], **changes)
        return self.worker_registry.heartbeat(self.workers[name])

    def submit(self, model: str, **fields: Any) -> str:
        submission = Submission(kind="generate", queue=f"gpu.{model}", model=model, spec={}, owner="local", **fields)
        return self.system.submitter.submit_job(submission).id

    def schedule(self) -> dict[str, str]:
        assigned, _ = self.system.maintenance.schedule_models(patience_ms=PATIENCE_MS)
        return assigned

    def desired_models(self) -> dict[str, str]:
        return {assignment.name: assignment.desired_model for assignment in self.assignments.list_all()}

    def end_all(self, model: str) -> None:
        """Complete all jobs that wait for a model, so that the test leaves no keys."""
        while job := self.system.transitions.claim(f"gpu.{model}", "gpu0@h/1", f"t{self.clock.now_ms}"):
            self.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)
            self.clock.advance(1)


@pytest.fixture
def cluster(redis_client: redis.Redis, system: JobSystem, clock: Clock) -> Cluster:
    return Cluster(redis_client, system, clock)


def test_a_desired_model_survives_restarts_until_the_startup_model_changes(cluster: Cluster) -> None:
    cluster.assignments.register("gpu0@h", "a")
    cluster.assignments.set_desired_model("gpu0@h", "b", "operator")
    again = cluster.assignments.register("gpu0@h", "a", loadable_models=["b"])
    assert (again.desired_model, again.requested_by, again.loadable_models) == ("b", "operator", ("b",))
    changed = cluster.assignments.register("gpu0@h", "c")
    assert (changed.desired_model, changed.requested_by) == ("c", "start")


def test_every_heartbeat_returns_the_desired_model(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "a")
    assert cluster.heartbeat("gpu0@h") == "a"
    cluster.assignments.set_desired_model("gpu0@h", "", "operator")
    assert cluster.heartbeat("gpu0@h") == ""
    cluster.assignments.forget_workers(["gpu0@h"])
    assert cluster.heartbeat("gpu0@h") is None
    assert cluster.assignments.set_desired_model("gpu0@h", "a", "operator") is None


def test_a_desired_model_is_published_to_the_live_worker(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "a")
    with cluster.client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("eh:worker:gpu0@h/1")
        channel.get_message(timeout=30)
        cluster.assignments.set_desired_model("gpu0@h", "b", "operator")
        message = channel.get_message(timeout=30) or channel.get_message(timeout=30)
    assert message is not None
    assert json.loads(message["data"]) == {"desired_model": "b"}


def test_an_idle_model_is_unloaded_only_if_no_job_has_arrived(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "a")
    assert cluster.assignments.set_desired_model("gpu0@h", "", "idle", expected="b") is None, "another model is desired"
    cluster.submit("a")
    assert cluster.assignments.set_desired_model("gpu0@h", "", "idle", expected="a") is None, "a job is waiting"
    job = cluster.system.transitions.claim("gpu.a", "gpu0@h/1", "t")
    assert job is not None
    assert cluster.assignments.set_desired_model("gpu0@h", "", "idle", expected="a") is None, "a job is running"
    cluster.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)
    assert cluster.assignments.set_desired_model("gpu0@h", "", "idle", expected="a") is not None
    assert cluster.desired_models() == {"gpu0@h": ""}


def test_an_empty_worker_is_chosen_first_then_a_failed_one_then_the_longest_idle(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "a", idle_ms=1000)
    cluster.add_worker("gpu1@h", "d", idle_ms=90_000)
    cluster.add_worker("gpu2@h", "e", phase="failed")
    cluster.add_worker("gpu3@h", "")
    for model, expected in (("b", "gpu3@h"), ("c", "gpu2@h")):
        cluster.submit(model)
        assert cluster.schedule() == {model: expected}
        assert cluster.schedule() == {}, "one worker is enough"
        cluster.heartbeat(expected, model=model, phase="ready", idle_ms=0)
        cluster.end_all(model)
    cluster.add_worker("gpu1@h", "d", loadable_models=("a", "b", "c", "x"), idle_ms=90_000)
    cluster.submit("x")
    assert cluster.schedule() == {"x": "gpu1@h"}
    cluster.end_all("x")


def test_a_model_with_work_is_never_unloaded(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "a", idle_ms=90_000)
    cluster.submit("b")
    waiting = cluster.submit("a")
    assert cluster.schedule() == {}, "a job is waiting for the loaded model"
    job = cluster.system.transitions.claim("gpu.a", "gpu0@h/1", "t")
    assert job is not None
    assert job.id == waiting
    assert cluster.schedule() == {}, "and now it is running"
    cluster.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)
    assert cluster.schedule() == {"b": "gpu0@h"}
    cluster.end_all("b")


def test_a_job_for_the_tokenizer_counts_as_work_of_the_model(cluster: Cluster, settings: Settings) -> None:
    cluster.add_worker("gpu0@h", "a", idle_ms=90_000)
    cluster.submit("b")
    text_jobs = [
        cluster.system.submitter.submit_job(
            Submission(kind="tokenize", queue=text_queue(model), model=model, spec={}, owner="local")
        ).id
        for model in ("a", "x")
    ]
    assert cluster.schedule() == {}, "a job waits for the tokenizer of the loaded model"
    assert cluster.assignments.set_desired_model("gpu0@h", "", "idle", expected="a") is None
    job = cluster.system.transitions.claim(text_queue("a"), "gpu0@h/1", "t")
    assert job is not None
    cluster.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)
    assert cluster.schedule() == {"b": "gpu0@h"}
    cluster.end_all("b")
    cluster.clock.advance(settings.unschedulable_seconds + 1)
    cluster.heartbeat("gpu0@h", model="b")
    _, ended = cluster.system.maintenance.schedule_models(patience_ms=PATIENCE_MS)
    assert ended == text_jobs[1:], "no worker can load x"


def test_a_job_for_the_tokenizer_loads_its_model(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "")
    submission = Submission(kind="tokenize", queue=text_queue("b"), model="b", spec={}, owner="local")
    cluster.system.submitter.submit_job(submission)
    assert cluster.schedule() == {"b": "gpu0@h"}
    job = cluster.system.transitions.claim(text_queue("b"), "gpu0@h/1", "t")
    assert job is not None
    cluster.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)


@pytest.mark.parametrize("phase", ["loading", "warming", "draining"])
def test_a_worker_that_is_changing_models_is_not_reassigned(cluster: Cluster, phase: str) -> None:
    cluster.add_worker("gpu0@h", "a", phase=phase)
    cluster.submit("b")
    assert cluster.schedule() == {}
    cluster.end_all("b")


def test_a_pinned_model_is_not_unloaded(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "a")
    cluster.assignments.register("gpu0@h", "a", loadable_models=["b"], pinned=["a"])
    cluster.submit("b")
    assert cluster.schedule() == {}
    cluster.end_all("b")


def test_a_dead_worker_keeps_its_assignment_for_a_while(cluster: Cluster) -> None:
    cluster.add_worker("gpu0@h", "a")
    cluster.add_worker("gpu1@h", "b")
    cluster.submit("b")
    cluster.client.hdel("eh:workers", "gpu1@h/1")
    cluster.clock.advance(PATIENCE_MS / 1000 - 1)
    cluster.heartbeat("gpu0@h")
    assert cluster.schedule() == {}, "the worker may return"
    cluster.clock.advance(2)
    cluster.heartbeat("gpu0@h")
    assert cluster.schedule() == {"b": "gpu0@h"}
    cluster.end_all("b")


def test_jobs_fail_after_a_while_if_no_live_worker_can_load_their_model(cluster: Cluster, settings: Settings) -> None:
    cluster.add_worker("gpu0@h", "a", loadable_models=("a",))
    job = cluster.submit("b")
    cluster.schedule()
    cluster.clock.advance(settings.unschedulable_seconds - 1)
    cluster.heartbeat("gpu0@h")
    cluster.schedule()
    assert cluster.system.queries.get_job(job).status is Status.QUEUED  # type: ignore[union-attr]
    cluster.clock.advance(2)
    cluster.heartbeat("gpu0@h")
    _, ended = cluster.system.maintenance.schedule_models(patience_ms=PATIENCE_MS)
    failed = cluster.system.queries.get_job(job)
    assert ended == [job]
    assert failed is not None
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert failed.error["code"] == "model_not_served"


def test_a_job_is_not_failed_for_the_time_that_earlier_jobs_waited(cluster: Cluster, settings: Settings) -> None:
    cluster.add_worker("gpu0@h", "a", loadable_models=("a",))
    earlier = cluster.submit("b")
    cluster.schedule()
    cluster.system.transitions.cancel(earlier, "local")
    cluster.schedule()
    cluster.clock.advance(settings.unschedulable_seconds + 1)
    cluster.heartbeat("gpu0@h")
    job = cluster.submit("b")
    cluster.schedule()
    assert cluster.system.queries.get_job(job).status is Status.QUEUED  # type: ignore[union-attr]
    cluster.end_all("b")


def test_jobs_keep_waiting_if_no_worker_is_alive(cluster: Cluster, settings: Settings) -> None:
    job = cluster.submit("b")
    cluster.schedule()
    cluster.clock.advance(settings.unschedulable_seconds * 2)
    cluster.schedule()
    assert cluster.system.queries.get_job(job).status is Status.QUEUED  # type: ignore[union-attr]
    cluster.end_all("b")


def test_no_model_is_assigned_if_loading_on_demand_is_off(redis_client: redis.Redis, settings: Settings, clock: Clock) -> None:
    system = JobSystem(redis_client, replace(settings, load_on_demand=False), lambda queue, count: None, clock=clock)
    cluster = Cluster(redis_client, system, clock)
    cluster.add_worker("gpu0@h", "")
    cluster.submit("a")
    assert cluster.schedule() == {}
    cluster.end_all("a")


def test_gpu_samples_in_a_heartbeat_are_read_back_unchanged(cluster: Cluster) -> None:
    quiet, faulty = {"index": 0, "xid_errors": []}, {"index": 1, "xid_errors": [79]}
    cluster.add_worker("gpu0@h", "a", gpus=(quiet, faulty))
    [worker] = cluster.worker_registry.workers()
    assert worker.gpus == (quiet, faulty)
