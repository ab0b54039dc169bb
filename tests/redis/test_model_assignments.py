"""Seats: what a worker should hold is a wish that outlives it; jobs find a seat for their model, and never at another's cost."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

PATIENCE_MS = 60_000


class Place:
    """Seats, workers and jobs under one clock."""

    def __init__(self, client: redis.Redis, system: JobSystem, clock: Clock) -> None:
        self.client, self.system, self.clock = client, system, clock
        self.assignments = ModelAssignments(client, clock=clock)
        self.worker_registry = WorkerRegistry(client, clock=clock)
        self.workers: dict[str, Worker] = {}

    def sit(self, name: str, model: str, loadable_models: Sequence[str] = ("a", "b", "c"), **fields: Any) -> None:
        """A living worker that holds what its seat wishes."""
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
        self.tell(name)

    def tell(self, name: str, **changes: Any) -> str | None:
        self.workers[name] = replace(self.workers[name], **changes)
        return self.worker_registry.heartbeat(self.workers[name])

    def submit(self, model: str, **fields: Any) -> str:
        submission = Submission(kind="generate", queue=f"gpu.{model}", model=model, spec={}, owner="local", **fields)
        return self.system.submitter.submit_job(submission).id

    def give(self) -> dict[str, str]:
        given, _ = self.system.maintenance.schedule_models(patience_ms=PATIENCE_MS)
        return given

    def wishes(self) -> dict[str, str]:
        return {assignment.name: assignment.desired_model for assignment in self.assignments.list_all()}

    def end_all(self, model: str) -> None:
        """Run whatever waits for a model, so that nothing is left when the test is over."""
        while job := self.system.transitions.claim(f"gpu.{model}", "gpu0@h/1", f"t{self.clock.now_ms}"):
            self.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)
            self.clock.advance(1)


@pytest.fixture
def place(redis_client: redis.Redis, system: JobSystem, clock: Clock) -> Place:
    return Place(redis_client, system, clock)


def test_a_wish_outlives_the_worker_until_it_is_started_with_another_model(place: Place) -> None:
    place.assignments.register("gpu0@h", "a")
    place.assignments.set_desired_model("gpu0@h", "b", "operator")
    again = place.assignments.register("gpu0@h", "a", loadable_models=["b"])
    assert (again.desired_model, again.requested_by, again.loadable_models) == ("b", "operator", ("b",))
    told_otherwise = place.assignments.register("gpu0@h", "c")
    assert (told_otherwise.desired_model, told_otherwise.requested_by) == ("c", "start")


def test_a_worker_hears_its_wish_whenever_it_tells_of_itself(place: Place) -> None:
    place.sit("gpu0@h", "a")
    assert place.tell("gpu0@h") == "a"
    place.assignments.set_desired_model("gpu0@h", "", "operator")
    assert place.tell("gpu0@h") == ""
    place.assignments.forget_workers(["gpu0@h"])
    assert place.tell("gpu0@h") is None
    assert place.assignments.set_desired_model("gpu0@h", "a", "operator") is None


def test_a_wish_is_published_to_the_living_worker(place: Place) -> None:
    place.sit("gpu0@h", "a")
    with place.client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("eh:worker:gpu0@h/1")
        channel.get_message(timeout=1)
        place.assignments.set_desired_model("gpu0@h", "b", "operator")
        message = channel.get_message(timeout=1) or channel.get_message(timeout=1)
    assert message is not None
    assert json.loads(message["data"]) == {"desired_model": "b"}


def test_a_model_is_unloaded_for_idleness_only_while_nothing_has_come(place: Place) -> None:
    place.sit("gpu0@h", "a")
    assert place.assignments.set_desired_model("gpu0@h", "", "idle", expected="b") is None, "another model is wished there"
    place.submit("a")
    assert place.assignments.set_desired_model("gpu0@h", "", "idle", expected="a") is None, "a job waits"
    job = place.system.transitions.claim("gpu.a", "gpu0@h/1", "t")
    assert job is not None
    assert place.assignments.set_desired_model("gpu0@h", "", "idle", expected="a") is None, "a job runs"
    place.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)
    assert place.assignments.set_desired_model("gpu0@h", "", "idle", expected="a") is not None
    assert place.wishes() == {"gpu0@h": ""}


def test_a_job_finds_the_empty_seat_first_then_the_failed_then_the_longest_idle(place: Place) -> None:
    place.sit("gpu0@h", "a", idle_ms=1000)
    place.sit("gpu1@h", "d", idle_ms=90_000)
    place.sit("gpu2@h", "e", phase="failed")
    place.sit("gpu3@h", "")
    for model, expected in (("b", "gpu3@h"), ("c", "gpu2@h")):
        place.submit(model)
        assert place.give() == {model: expected}
        assert place.give() == {}, "one seat is enough"
        place.tell(expected, model=model, phase="ready", idle_ms=0)
        place.end_all(model)
    place.sit("gpu1@h", "d", loadable_models=("a", "b", "c", "x"), idle_ms=90_000)
    place.submit("x")
    assert place.give() == {"x": "gpu1@h"}
    place.end_all("x")


def test_a_seat_with_work_is_never_given_up(place: Place) -> None:
    place.sit("gpu0@h", "a", idle_ms=90_000)
    place.submit("b")
    waiting = place.submit("a")
    assert place.give() == {}, "a job waits for the model there"
    job = place.system.transitions.claim("gpu.a", "gpu0@h/1", "t")
    assert job is not None
    assert job.id == waiting
    assert place.give() == {}, "and now it runs"
    place.system.transitions.finish((job.id, job.attempt), Status.COMPLETED)
    assert place.give() == {"b": "gpu0@h"}
    place.end_all("b")


@pytest.mark.parametrize("phase", ["loading", "warming", "draining"])
def test_a_seat_that_is_getting_ready_is_left_alone(place: Place, phase: str) -> None:
    place.sit("gpu0@h", "a", phase=phase)
    place.submit("b")
    assert place.give() == {}
    place.end_all("b")


def test_a_pinned_model_stays(place: Place) -> None:
    place.sit("gpu0@h", "a")
    place.assignments.register("gpu0@h", "a", loadable_models=["b"], pinned=["a"])
    place.submit("b")
    assert place.give() == {}
    place.end_all("b")


def test_a_dead_workers_model_is_waited_for_before_another_gives_up_its_place(place: Place) -> None:
    place.sit("gpu0@h", "a")
    place.sit("gpu1@h", "b")
    place.submit("b")
    place.client.hdel("eh:workers", "gpu1@h/1")
    place.clock.advance(PATIENCE_MS / 1000 - 1)
    place.tell("gpu0@h")
    assert place.give() == {}, "it may come back"
    place.clock.advance(2)
    place.tell("gpu0@h")
    assert place.give() == {"b": "gpu0@h"}
    place.end_all("b")


def test_jobs_of_a_model_that_no_living_worker_could_hold_end_after_a_while(place: Place, settings: Settings) -> None:
    place.sit("gpu0@h", "a", loadable_models=("a",))
    job = place.submit("b")
    place.give()
    place.clock.advance(settings.unschedulable_seconds - 1)
    place.tell("gpu0@h")
    place.give()
    assert place.system.queries.get_job(job).status is Status.QUEUED  # type: ignore[union-attr]
    place.clock.advance(2)
    place.tell("gpu0@h")
    _, ended = place.system.maintenance.schedule_models(patience_ms=PATIENCE_MS)
    failed = place.system.queries.get_job(job)
    assert ended == [job]
    assert failed is not None
    assert failed.status is Status.FAILED
    assert failed.error is not None
    assert failed.error["code"] == "model_not_served"


def test_without_any_living_worker_jobs_wait(place: Place, settings: Settings) -> None:
    job = place.submit("b")
    place.give()
    place.clock.advance(settings.unschedulable_seconds * 2)
    place.give()
    assert place.system.queries.get_job(job).status is Status.QUEUED  # type: ignore[union-attr]
    place.end_all("b")


def test_nothing_is_given_up_where_loading_on_demand_is_off(redis_client: redis.Redis, settings: Settings, clock: Clock) -> None:
    off = JobSystem(redis_client, replace(settings, load_on_demand=False), lambda queue, count: None, clock=clock)
    place = Place(redis_client, off, clock)
    place.sit("gpu0@h", "")
    place.submit("a")
    assert place.give() == {}
    place.end_all("a")


def test_what_a_worker_tells_of_its_gpus_is_read_as_it_was_told(place: Place) -> None:
    quiet, faulty = {"index": 0, "xid_errors": []}, {"index": 1, "xid_errors": [79]}
    place.sit("gpu0@h", "a", gpus=(quiet, faulty))
    [worker] = place.worker_registry.workers()
    assert worker.gpus == (quiet, faulty)
