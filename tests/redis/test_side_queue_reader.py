"""Side queue reader: one of its threads waits for a wake-up, and its jobs run at the same time."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest
import redis

from shared.settings import Settings
from testing.waiting import wait_until
from tests.unit.runtime_fakes import RecordingTransitions, RegistryInMemory, queued_job
from workers.runtime.attempt import Attempt
from workers.runtime.side_queue_reader import SideQueueReader
from workers.runtime.worker_runtime import WorkerRuntime, describe_process

THREADS = 8


@pytest.fixture
def reads(redis_url: str, redis_client: redis.Redis) -> Any:
    redis_client.config_resetstat()
    return lambda: (redis_client.info("commandstats").get("cmdstat_brpop") or {"calls": 0})["calls"]


def test_one_thread_waits_for_wakeups_while_others_run_jobs(redis_url: str, redis_client: redis.Redis, reads: Any) -> None:
    release, running = threading.Event(), threading.Semaphore(0)

    def run(attempt: Attempt) -> Mapping[str, Any]:
        running.release()
        release.wait(20)
        return {}

    transitions = RecordingTransitions()
    worker = describe_process("io@host", pool="io", queues=("fetches",), slots=1)
    runtime = WorkerRuntime(Settings(), transitions, transitions, RegistryInMemory(), {"generate": run}, worker)
    SideQueueReader(redis_url, "fetches", THREADS, runtime).start_threads()
    try:
        for number in (1, 2):
            transitions.queued.append(queued_job(number))
            redis_client.lpush("fetches", "a wake-up")
            assert running.acquire(timeout=10)
        wait_until(lambda: reads() >= 3, "a third thread waits for a wake-up")
        assert reads() == 3
    finally:
        runtime.draining.set()
        release.set()
        redis_client.lpush("fetches", "the last wake-up")
    wait_until(lambda: transitions.names().count("finish") == 2, "both jobs ended")
