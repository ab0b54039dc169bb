"""Maintenance services, each run once with the time given."""

import threading
from pathlib import Path
from typing import Any

import redis

from shared.jobs.worker_registry import Worker
from shared.machine import machine_id
from shared.settings import Settings
from tests.unit.runtime_fakes import ManualClock, RecordingTransitions, RegistryInMemory
from workers.runtime.maintenance import (
    PURGE_SECONDS,
    DeadWorkerCleaner,
    JobPurger,
    LeaseReaper,
    MaintenanceThread,
    ModelScheduler,
    StatsRecorder,
    WakeupIssuer,
)
from workers.runtime.turn_file import TurnFile

SETTINGS = Settings(lease_seconds=20.0, renew_seconds=2.0, maintenance_seconds=1.0)
NOW = 1000.0


def worker(name: str, *, machine: str = "elsewhere", pid: int = 1) -> Worker:
    return Worker(id=f"{name}/{pid}", name=name, pool="gpu", machine=machine, pid=pid, started=0.0, queues=(), slots=1)


def reaped_leases(transitions: RecordingTransitions) -> list[bool]:
    return [options["leases"] for name, _, options in transitions.calls if name == "reap"]


def test_the_reaper_judges_no_lease_until_workers_have_had_time_to_renew() -> None:
    transitions = RecordingTransitions()
    reaper = LeaseReaper(SETTINGS, transitions, NOW)
    for now in (NOW, NOW + 4.0, NOW + 4.1):
        reaper.run_once(now)
    reaper.note_outage(NOW + 10)
    for now in (NOW + 11, NOW + 14, NOW + 14.1):
        reaper.run_once(now)
    assert reaped_leases(transitions) == [False, False, True, False, False, True]


def test_the_reaper_allows_a_gap_of_a_quarter_lease_and_a_grace_of_two_renewals() -> None:
    transitions = RecordingTransitions()
    LeaseReaper(SETTINGS, transitions, NOW).run_once(NOW)
    [(_, _, options)] = transitions.calls
    assert (options["gap_ms"], options["grace_ms"]) == (5000, 4000)


def cleaned(transitions: RecordingTransitions) -> list[str]:
    return [arguments[0] for name, arguments, _ in transitions.calls if name == "mark_worker_dead"]


def test_jobs_of_a_neighbour_whose_process_is_gone_are_requeued_at_once() -> None:
    transitions, registry = RecordingTransitions(), RegistryInMemory(worker("gpu0"), worker("gpu1"))
    registry.dead.add("gpu0/1")
    DeadWorkerCleaner(SETTINGS, transitions, registry).run_once(NOW)
    assert cleaned(transitions) == ["gpu0/1"]


def test_processes_are_looked_at_more_often_than_the_registry_is_read() -> None:
    transitions, registry = RecordingTransitions(), RegistryInMemory(worker("gpu0"), worker("gpu1"))
    cleaner = DeadWorkerCleaner(SETTINGS, transitions, registry)
    cleaner.run_once(NOW)
    registry.silence_ms = {"gpu1/1": 90_000}
    registry.dead.add("gpu0/1")
    cleaner.run_once(NOW + 1.0)
    assert cleaned(transitions) == ["gpu0/1"]
    registry.listed = [worker("gpu1")]
    cleaner.run_once(NOW + 1.5)
    assert cleaned(transitions) == ["gpu0/1", "gpu1/1"], "what was read before a death does not hold any more"
    registry.listed = [worker("gpu2")]
    registry.dead.add("gpu2/1")
    cleaner.run_once(NOW + 1.5 + SETTINGS.renew_seconds)
    assert cleaned(transitions)[2:] == ["gpu2/1"]


def test_a_remote_worker_is_dead_after_two_leases_of_silence() -> None:
    transitions, registry = RecordingTransitions(), RegistryInMemory(worker("gpu0"), worker("gpu1"))
    registry.silence_ms = {"gpu0/1": 40_000, "gpu1/1": 40_001}
    DeadWorkerCleaner(SETTINGS, transitions, registry).run_once(NOW)
    assert cleaned(transitions) == ["gpu1/1"]


def test_silence_proves_nothing_while_reaping_was_interrupted() -> None:
    transitions, registry = RecordingTransitions(), RegistryInMemory(worker("gpu0"))
    registry.silence_ms = {"gpu0/1": 90_000}
    transitions.answers["reaps_steadily"] = False
    DeadWorkerCleaner(SETTINGS, transitions, registry).run_once(NOW)
    assert cleaned(transitions) == []


def test_a_restarted_worker_requeues_the_jobs_of_its_predecessor_in_another_container() -> None:
    former, other = worker("gpu0", machine="old container"), worker("gpu1", machine="old container")
    present = worker("gpu0", machine=machine_id(), pid=2)
    transitions = RecordingTransitions()
    cleaner = DeadWorkerCleaner(SETTINGS, transitions, RegistryInMemory(former, other, present))
    cleaner.requeue_jobs_of_predecessor("gpu0")
    assert cleaned(transitions) == ["gpu0/1"]


def test_the_model_scheduler_waits_two_leases_for_a_silent_worker() -> None:
    transitions = RecordingTransitions()
    ModelScheduler(SETTINGS, transitions, lambda: True).run_once(NOW)
    assert transitions.calls == [("schedule_models", (), {"patience_ms": 40_000})]


def test_missing_wakeups_are_sent_at_most_once_a_second() -> None:
    transitions = RecordingTransitions()
    WakeupIssuer(transitions, lambda: True).run_once(NOW)
    assert transitions.calls == [("missing_wakeups", (1000,), {})]


def test_models_are_scheduled_and_wakeups_counted_only_while_jobs_wait() -> None:
    transitions = RecordingTransitions()
    reaper = LeaseReaper(SETTINGS, transitions, NOW)
    services = [
        reaper,
        ModelScheduler(SETTINGS, transitions, lambda: reaper.jobs_wait),
        WakeupIssuer(transitions, lambda: reaper.jobs_wait),
    ]
    rounds = []
    for jobs_wait in (False, False, True, True, False, False):
        transitions.answers["jobs_wait"] = jobs_wait
        transitions.calls.clear()
        for service in services:
            service.run_once(NOW)
        rounds.append(transitions.names()[1:])
    both = ["schedule_models", "missing_wakeups"]
    # After the last job, the scheduler forgets since when jobs have waited for a worker.
    assert rounds == [["schedule_models"], [], both, both, ["schedule_models"], []]


def test_the_purger_purges_once_a_minute() -> None:
    transitions = RecordingTransitions()
    purger = JobPurger(transitions, NOW)
    for now in (NOW, NOW + PURGE_SECONDS, NOW + PURGE_SECONDS + 1, NOW + PURGE_SECONDS + 2):
        purger.run_once(now)
    assert transitions.names() == ["purge"]
    purger.run_once(NOW + 2 * PURGE_SECONDS + 2)
    assert transitions.names() == ["purge", "purge"]


class Service:
    """Notes when it ran; raises ``error`` if it has one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.runs: list[float] = []

    def run_once(self, now: float) -> None:
        self.runs.append(now)
        if self.error is not None:
            raise self.error


def thread(*services: Service, **options: Any) -> MaintenanceThread:
    return MaintenanceThread(services, 0.001, threading.Event(), clock=ManualClock(), **options)


def test_a_failing_service_harms_no_other() -> None:
    outages: list[float] = []
    broken, healthy = Service(ValueError("bug")), Service()
    thread(broken, healthy, on_outage=outages.append).run_services()
    assert (broken.runs, healthy.runs, outages) == ([NOW], [NOW], [])


def test_an_outage_ends_the_round_and_is_reported() -> None:
    outages: list[float] = []
    away, later = Service(redis.ConnectionError("refused")), Service()
    thread(away, later, on_outage=outages.append).run_services()
    assert (len(away.runs), later.runs, outages) == (1, [], [NOW])


def test_workers_of_a_machine_take_turns_and_always_do_what_only_they_can() -> None:
    turns, outages = iter([True, False, redis.ConnectionError("refused"), True]), list[float]()

    def take_turn() -> bool:
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    shared, own = Service(), Service()
    running = thread(shared, own_services=[own], take_turn=take_turn, on_outage=outages.append)
    counts = []
    for _ in range(4):
        running.run_services()
        counts.append((len(shared.runs), len(own.runs)))
    assert counts == [(1, 1), (1, 2), (1, 2), (2, 3)]
    assert outages == [NOW]


def test_one_process_has_the_turn_until_its_time_is_over(tmp_path: Path) -> None:
    clock = ManualClock()
    first, second = (TurnFile(tmp_path / "run" / "maintenance", 0.9, clock=clock) for _ in range(2))
    assert [first.take_turn(), second.take_turn(), first.take_turn()] == [True, False, False]
    clock.now += 1.0
    assert [second.take_turn(), first.take_turn()] == [True, False]
    clock.now -= 100.0
    assert [first.take_turn(), second.take_turn()] == [True, False], "the clock was set back"


def test_every_process_has_the_turn_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    turn = TurnFile(tmp_path / "file" / "maintenance", 0.9, clock=ManualClock())
    assert [turn.take_turn(), turn.take_turn()] == [True, True]


def test_statistics_are_written_once_an_interval() -> None:
    transitions = RecordingTransitions()
    transitions.answers["record_stats"] = 4.0
    recorder = StatsRecorder(transitions)
    for now in (NOW, NOW + 1, NOW + 3.9, NOW + 4.5, NOW + 5):
        recorder.run_once(now)
    assert transitions.names() == ["record_stats", "record_stats"]


def test_the_thread_runs_its_services_until_it_is_stopped() -> None:
    stopping = threading.Event()

    class StopAfterThree(Service):
        def run_once(self, now: float) -> None:
            super().run_once(now)
            if len(self.runs) == 3:
                stopping.set()

    service = StopAfterThree()
    running = MaintenanceThread([service], 0.001, stopping, clock=ManualClock())
    running.start()
    running.join(60)
    assert not running.is_alive()
    assert len(service.runs) == 3
