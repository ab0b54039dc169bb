"""Enginehouse installed from its wheels: everything works in another folder, without a checkout and without PYTHONPATH."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cli.local.redis_server import free_port
from testing.repository import REPOSITORY
from testing.waiting import wait_until

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("dist")
    for project in (REPOSITORY, REPOSITORY / "client"):
        # By way of a source distribution, so that it is complete too.
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(project)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with the two wheels; all other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    done = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A path in a .pth file does not execute the .pth files over there, so this checkout stays out of sight.
    site_packages = next((folder / "lib").glob("python*/site-packages"))
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.fixture
def environment(installed: Path) -> dict[str, str]:
    around = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("ENGINEHOUSE_")}
    return around | {"PATH": f"{installed}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def project(installed: Path, environment: dict[str, str], tmp_path: Path) -> Path:
    """A folder that `enginehouse init` has filled. Its other folders have the names of our packages."""
    folder = tmp_path / "project"
    done = run(installed, environment, tmp_path, "init", "project")
    assert done.returncode == 0, done.stderr
    for name in ("api", "shared", "workers"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('a folder of the user')\n")
    return folder


def run(
    installed: Path, environment: dict[str, str], folder: Path, *arguments: str, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "enginehouse"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False)


def test_the_packages_come_from_the_wheels(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    code = "import api, cli, enginehouse_client, shared, workers; print(*{m.__file__ for m in (api, cli, enginehouse_client, shared, workers)})"
    command = [str(installed / "python"), "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=True)
    assert all(Path(file).is_relative_to(installed.parent) for file in done.stdout.split()), done.stdout


def test_init_writes_a_project_once(installed: Path, environment: dict[str, str], project: Path) -> None:
    for name in ("models.json", "docker-compose.yml"):
        assert (project / name).read_bytes() == (REPOSITORY / name).read_bytes()
    assert re.search(r"^REDIS_PASSWORD=\S{32}$", (project / ".env").read_text(), re.MULTILINE)
    (project / "models.json").write_text("edited")
    done = run(installed, environment, project.parent, "init", "project")
    assert done.returncode == 2
    assert "models.json, .env, docker-compose.yml already exist in project" in done.stderr
    assert (project / "models.json").read_text() == "edited"


def test_init_in_the_current_folder_shows_no_cd(installed: Path, environment: dict[str, str], tmp_path: Path) -> None:
    done = run(installed, environment, tmp_path, "init")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Wrote models.json, .env, docker-compose.yml to this folder.")
    assert "cd " not in done.stdout
    assert run(installed, environment, tmp_path, "init", str(tmp_path / "a b")).stdout.count(f"cd '{tmp_path}/a b'") == 1


def test_demo_answers_with_sources(installed: Path, environment: dict[str, str], project: Path) -> None:
    done = run(installed, environment, project, "demo", "--engine", "echo", "--port", str(free_port()), seconds=500)
    log = project / ".enginehouse" / "demo.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text()[-3000:] if log.exists() else "")
    assert "employee-handbook.pdf, page 1" in done.stdout
    assert "Everything has stopped" in done.stdout
    password = (project / ".enginehouse" / "flower-password").read_text()
    assert password not in done.stdout + done.stderr + log.read_text()
    assert "user enginehouse, password in " in done.stdout


@pytest.fixture
def server(installed: Path, environment: dict[str, str], project: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    (project / "models.json").write_text('[{"name": "parrot", "url": "echo:0", "engine": "echo"}]')
    port = free_port()
    command = [str(installed / "enginehouse"), "up", "--port", str(port), "--no-flower"]
    with (project / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
    yield process, f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(240)


def test_up_serves_the_models_file_of_the_current_folder(server: tuple[subprocess.Popen[bytes], str], project: Path) -> None:
    process, url = server

    def answers() -> bool:
        assert process.poll() is None, (project / "log").read_text()[-3000:]
        try:
            return httpx2.get(f"{url}/models").status_code == 200
        except httpx2.TransportError:
            return False

    wait_until(answers, "the API answers", seconds=120, every=0.2)
    assert [model["name"] for model in httpx2.get(f"{url}/models").json()] == ["parrot"]
    assert "<html" in httpx2.get(url).text
    job = httpx2.post(f"{url}/generate", json={"prompt": "hello"}, headers={"Prefer": "wait=60"}, timeout=240)
    assert job.json()["result"]["text"] == "hello"
