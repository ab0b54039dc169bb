"""The services of the Compose file, run as local processes with the commands and settings of the file.

Only what a container provides is replaced: host names by loopback, ports by free ones, volumes by folders.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from cli.local.process_tree import signal_group, spawn
from cli.local.redis_server import find_binary, free_port
from testing.fault_rig.processes import has_word
from testing.repository import REPOSITORY
from testing.stack import models
from testing.waiting import wait_until
from tests.structure.test_compose import PASSWORDS, compose

SERVICES = ("redis", "chroma", "model-on-cpu", "cpu", "io", "api", "flower")
PORTS = ("6379", "8000", "5000", "5555")


class Host:
    """Stands for the host that runs the containers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {port: str(free_port()) for port in PORTS}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        programs = folder / "programs"
        for name in ("programs", "redis-data", "tmp"):
            (folder / name).mkdir()
        (programs / "redis-server").symlink_to(find_binary())
        self._path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.api = f"http://127.0.0.1:{self._ports['5000']}"
        self.flower = f"http://127.0.0.1:{self._ports['5555']}"

    def start(self, name: str, service: dict[str, Any]) -> None:
        own = {key: self._localize(value) for key, value in service.get("environment", {}).items()}
        environment = {"PATH": self._path, "PYTHONPATH": str(REPOSITORY), "ENGINEHOUSE_ALLOW_ROOT": "1", **own}
        (self._folder / name).mkdir()
        with (self._folder / f"{name}.log").open("wb") as log:
            # Compose escapes the dollar signs in its output.
            words = [self._localize(word.replace("$$", "$")) for word in service["command"]]
            command = [*("env", "--chdir", str(self._folder / name)), *words]
            self.processes[name] = spawn(command, environment=environment, output=log)

    def check(self, service: dict[str, Any]) -> bool:
        """Run the health check of the service."""
        command = [self._localize(word) for word in service["healthcheck"]["test"][1:]]
        environment = {
            "PATH": self._path,
            **{key: self._localize(value) for key, value in service.get("environment", {}).items()},
        }
        environment["PYTHONPATH"] = str(REPOSITORY)
        return subprocess.run(command, env=environment, capture_output=True, timeout=240, check=False).returncode == 0

    def run(self, service: dict[str, Any], words: list[str], *, user: str, password: str) -> str:
        """Run a command in the environment of a service, as ``docker compose run`` does, with another login of Redis."""
        own = {key: self._localize(value) for key, value in service["environment"].items()}
        own["REDIS_URL"] = f"redis://{user}:{password}@127.0.0.1:{self._ports['6379']}/0"
        environment = {"PATH": self._path, "PYTHONPATH": str(REPOSITORY), **own}
        command = [sys.executable, "-m", "cli.main", *map(self._localize, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def written_by(self, name: str) -> list[Path]:
        """What a service wrote into the folder that it was started in."""
        return list((self._folder / name).iterdir())

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(240)
            except subprocess.TimeoutExpired:
                signal_group(process.pid, 9)
                process.wait()

    def _localize(self, text: str) -> str:
        for name in ("redis", "chroma"):
            text = text.replace(f"@{name}:", "@127.0.0.1:").replace(f"//{name}:", "//127.0.0.1:")
        for port, free in self._ports.items():
            text = text.replace(f":{port}", f":{free}").replace(f"--port={port}", f"--port={free}")
            text = free if text == port else text.replace(f"port {port}\n", f"port {free}\n")
        text = text.replace("dir /data\n", f"dir {self._folder}/redis-data\n")
        return re.sub(r"^(?=/(data|index|app/models\.json|tmp)(/|$))", str(self._folder), text)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "models.json").write_text(json.dumps(models(0)))
    yield host
    host.stop()


def test_the_services_of_the_compose_file_complete_a_job(host: Host) -> None:
    done = compose("--profile", "cpu", "config", "--format", "json")
    services = json.loads(done.stdout)["services"]
    for name in SERVICES:
        host.start(name, services[name])
    with httpx2.Client(base_url=host.api, timeout=60) as client:

        def ready() -> bool:
            for name, process in host.processes.items():
                assert process.poll() is None, f"{name} ended early (status {process.returncode}):\n{host.log(name)}"
            try:
                return client.get("/health/ready").status_code == 200
            except httpx2.TransportError:
                return False

        wait_until(ready, "the stack is ready", every=0.2)
        # In the container every caller comes from another address.
        assert services["api"]["environment"].get("ENGINEHOUSE_ALLOW_OPEN") is None
        answer = client.post("/generate", json={"prompt": "compose"}, headers={"Prefer": "wait=50"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "completed"
    backup = host.run(
        services["io"], ["backup", "/data/backup.tar", "--json"], user="default", password=PASSWORDS["REDIS_PASSWORD"]
    )
    assert json.loads(backup)["keys"] > 0
    login = services["flower"]["environment"]["FLOWER_BASIC_AUTH"].split(":")
    wait_until(lambda: host.check(services["flower"]), "Flower's health check passes")
    assert httpx2.get(f"{host.flower}/workers").status_code == 401
    assert httpx2.get(f"{host.flower}/workers", auth=(login[0], login[1])).status_code == 200
    assert httpx2.get(f"{host.flower}/metrics").status_code == 401
    assert httpx2.get(f"{host.flower}/metrics", auth=(login[0], login[1])).status_code == 200
    for name in ("chroma", "api", "model-on-cpu", "io"):
        assert host.check(services[name]), f"the health check of {name} passes"
    for password in PASSWORDS.values():
        for name, process in host.processes.items():
            for member in (one := psutil.Process(process.pid), *one.children(recursive=True)):
                assert not has_word(member, password), f"a password is on the command line of {name}"
            assert password not in host.log(name), f"a password is in the log of {name}"
    # The containers are read-only except for volumes and /tmp.
    assert {name: host.written_by(name) for name in SERVICES} == {name: [] for name in SERVICES}
