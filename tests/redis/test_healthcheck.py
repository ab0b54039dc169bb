"""``enginehouse healthcheck`` on a Redis without a stack."""

import json
import socket
from pathlib import Path

import pytest
import redis

from cli.local.healthcheck import Unhealthy, check_workers
from shared.jobs.worker_registry import WorkerRegistry
from shared.settings import Settings
from workers.runtime.worker_runtime import describe_process


def test_a_healthcheck_finds_redis_by_url_and_by_data_folder(
    redis_client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = describe_process(f"io@{socket.gethostname()}", pool="io", queues=("io",), slots=1)
    WorkerRegistry(redis_client).heartbeat(worker)
    assert check_workers(settings, explicit=True) == [worker.name]
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    assert check_workers(settings, explicit=False) == [worker.name]
    monkeypatch.delenv("REDIS_URL")
    (settings.data_dir / "state.json").write_text(json.dumps({"redis": settings.redis_url}))
    assert check_workers(Settings(data_dir=settings.data_dir), explicit=False) == [worker.name]


def test_a_healthcheck_says_why_it_fails(
    redis_client: redis.Redis, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    address = settings.redis_url.rpartition("@")[2]
    with pytest.raises(
        Unhealthy, match=f"No worker on host {socket.gethostname()} has sent a heartbeat to Redis at redis://{address}"
    ):
        check_workers(settings, explicit=True)
    WorkerRegistry(redis_client).heartbeat(describe_process("io@elsewhere", pool="io", queues=("io",), slots=1))
    with pytest.raises(Unhealthy, match="No worker on host"):
        check_workers(settings, explicit=True)
    registry = WorkerRegistry(redis_client, clock=lambda: 1)
    registry.heartbeat(describe_process(f"cpu@{socket.gethostname()}", pool="cpu", queues=("cpu",), slots=1))
    with pytest.raises(Unhealthy, match=f"Last heartbeats: cpu@{socket.gethostname()} [0-9]+ s ago"):
        check_workers(settings, explicit=True)
    with pytest.raises(Unhealthy, match=r"Redis at redis://127\.0\.0\.1:1/0 is not reachable"):
        check_workers(Settings(redis_url="redis://:secret@127.0.0.1:1/0"), explicit=True)
    with pytest.raises(Unhealthy, match=r"No Enginehouse is running on the data folder .* start it with `enginehouse up`"):
        check_workers(Settings(data_dir=tmp_path / "none"), explicit=False)
