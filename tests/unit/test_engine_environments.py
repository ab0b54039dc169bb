"""``enginehouse engines``: an environment in the data folder with the engine's package, whose interpreter finds Enginehouse's code."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from shared.errors import ModelUnavailable
from shared.packaged_files import CODE_ROOT
from shared.settings import Settings
from workers.gpu.engine_client.engine_interpreter import MARKER, environment_folder, find_interpreter, link_code


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with the name and a version of vLLM, and the layout of one that is too old: it has no AsyncLLM."""
    file = tmp_path_factory.mktemp("wheel") / "vllm-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("vllm/__init__.py", "")
        archive.writestr("vllm/engine/__init__.py", "")
        archive.writestr("vllm/engine/arg_utils.py", "")
        archive.writestr("vllm-0.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: vllm\nVersion: 0.1.0\n")
        archive.writestr("vllm-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("vllm-0.1.0.dist-info/RECORD", "")
    return file


def command(data: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["engines", *words, "--data", str(data)])


@pytest.mark.slow_fault
def test_an_environment_is_continued_checked_used_and_removed(wheel: Path, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(ModelUnavailable, match="enginehouse engines add vllm"):
        find_interpreter("vllm", settings)
    assert "not installed" in command(tmp_path, "list").output

    failed = command(tmp_path, "add", "vllm", "--requirement", str(tmp_path / "missing.whl"))
    assert "run the command again to continue" in str(failed.exception)
    assert "incomplete" in command(tmp_path, "list").output
    with pytest.raises(ModelUnavailable, match="is not installed"):
        find_interpreter("vllm", settings)

    added = command(tmp_path, "add", "vllm", "--requirement", str(wheel))
    assert added.exit_code == 0, added.output
    assert "vllm 0.1.0 is installed" in added.output
    assert json.loads(command(tmp_path, "list", "--json").output)[0]["version"] == "0.1.0"

    # The worker starts that interpreter, which has neither the libraries nor the paths of this one.
    interpreter = find_interpreter("vllm", settings)
    done = subprocess.run(
        [
            interpreter.path,
            "-c",
            "import json, sys, shared.errors as m, importlib.util as u; "
            "print(json.dumps([sys.prefix, m.__file__, u.find_spec('flask') is None]))",
        ],
        env=interpreter.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    prefix, file, without_flask = json.loads(done.stdout)
    assert Path(prefix) == environment_folder("vllm", settings)
    assert Path(file).resolve() == CODE_ROOT / "shared" / "errors.py"
    assert without_flask

    # The package lacks what the engine uses, and the check names it.
    checked = command(tmp_path, "check", "vllm")
    assert checked.exit_code == 1
    assert "vllm 0.1.0" in checked.output
    assert "cannot" in checked.output

    assert command(tmp_path, "remove", "vllm").exit_code == 0
    assert not environment_folder("vllm", settings).exists()
    assert "has no environment" in str(command(tmp_path, "remove", "vllm").exception)


def test_an_interpreter_that_is_given_replaces_the_environment(tmp_path: Path) -> None:
    folder = environment_folder("vllm", Settings(data_dir=tmp_path))
    folder.mkdir(parents=True)
    (folder / MARKER).write_text("{}")
    interpreter = find_interpreter("vllm", Settings(data_dir=tmp_path, vllm_python=Path(sys.executable)))
    assert interpreter.path == sys.executable
    # What the user has set for it stays; our code comes first.
    assert interpreter.environment()["PYTHONPATH"].split(os.pathsep)[0] == str(folder.parent / "code")
    with pytest.raises(ModelUnavailable, match=r"ENGINEHOUSE_VLLM_PYTHON is .*nothing, which is not an executable file"):
        find_interpreter("vllm", Settings(data_dir=tmp_path, vllm_python=tmp_path / "nothing"))


def test_links_to_the_code_follow_the_version_that_runs(tmp_path: Path) -> None:
    code = link_code(tmp_path)
    (code / "shared").unlink()
    (code / "shared").symlink_to(tmp_path)
    assert (link_code(tmp_path) / "shared").resolve() == CODE_ROOT / "shared"
    assert sorted(path.name for path in code.iterdir()) == ["pynvml.py", "shared", "workers"]


def test_other_engines_run_in_this_interpreter() -> None:
    assert find_interpreter("echo", Settings()).path == sys.executable
