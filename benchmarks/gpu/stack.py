"""Benchmark stack: Redis, the API, and a GPU worker for each device, without the pools that handle documents.

Started with the same commands as ``enginehouse up``.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import psutil

from cli.local.process_commands import api_command, environment_of, worker_command
from cli.local.process_tree import spawn
from cli.local.redis_server import RedisServer, free_port, start_redis
from shared.settings import Settings
from testing.repository import REPOSITORY

READY_SECONDS = 300.0


class BenchmarkStack:
    """``devices`` are the CUDA device numbers of each replica of the model; None for the CPU."""

    def __init__(self, folder: Path, models_file: Path, devices: list[list[int]] | None, *, api_workers: int = 4) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # On SIGTERM, end the processes that were started, because they would keep the GPU.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        self._redis: RedisServer = start_redis(folder / "redis")
        self.settings = Settings(
            data_dir=folder,
            redis_url=self._redis.url,
            port=free_port(),
            models_file=models_file,
            models_dir=folder / "models",
            api_workers=api_workers,
            log_level="INFO",
        )
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._start("api", api_command(self.settings), self.settings)
        for number, own in enumerate(devices if devices is not None else [[]]):
            settings = replace(self.settings, worker_device=",".join(map(str, own)))
            self._start(f"gpu{number}", worker_command("gpu", settings, number), settings)
        self.replicas = len(self._processes) - 1

    def _start(self, name: str, command: list[str], settings: Settings) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            # Killed with this process, or they would keep the GPU.
            self._processes[name] = spawn(command, environment=environment_of(settings), output=log, directory=REPOSITORY)

    def wait_ready(self) -> float:
        """Wait until every replica is ready; returns the seconds."""
        start = time.monotonic()
        with httpx2.Client(base_url=self.url, timeout=10) as client:
            while time.monotonic() - start < READY_SECONDS:
                if any(process.poll() is not None for process in self._processes.values()):
                    break
                try:
                    model = client.get("/models").json()[0]
                except (httpx2.HTTPError, ValueError):
                    model = {}
                if model.get("state") == "ready" and model["workers"] == self.replicas:
                    return time.monotonic() - start
                time.sleep(0.05)
        raise SystemExit(f"the stack did not become ready; its logs end with:\n{self.logs()}")

    def logs(self, characters: int = 3000) -> str:
        return "\n".join(f"== {file.name}\n{file.read_text()[-characters:]}" for file in self.folder.glob("*.log"))

    def engines(self) -> list[psutil.Process]:
        """The running engine processes."""
        found = []
        for name, process in self._processes.items():
            if name.startswith("gpu"):
                try:
                    family = psutil.Process(process.pid).children(recursive=True)
                    found += [process for process in family if "workers.gpu.engine" in process.cmdline()]
                except psutil.Error:
                    continue
        return found

    def memory(self) -> dict[str, int]:
        """Resident MiB of each process."""
        sizes = {name: _family(process.pid) for name, process in self._processes.items()}
        sizes["engines"] = sum(_resident(engine) for engine in self.engines())
        sizes["redis"] = _family(self._redis.process.pid)
        return sizes

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time of each process since its start, with its children."""
        engines = self.engines()
        seconds = {name: sum(map(_cpu, _processes(process.pid))) for name, process in self._processes.items()}
        return {**seconds, "engines": sum(map(_cpu, engines)), "redis": sum(map(_cpu, _processes(self._redis.process.pid)))}

    def model(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(httpx2.get(f"{self.url}/models", timeout=10).text)[0]
        return answer

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
        self._redis.stop()


def _processes(pid: int) -> list[psutil.Process]:
    """A process and its descendants without engines."""
    try:
        parent = psutil.Process(pid)
        family = (parent, *parent.children(recursive=True))
        return [process for process in family if "workers.gpu.engine" not in process.cmdline()]
    except psutil.Error:
        return []


def _family(pid: int) -> int:
    return sum(_resident(process) for process in _processes(pid))


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss) // 2**20
    except psutil.Error:
        return 0
