"""``enginehouse engines``: environments for engines whose packages differ from Enginehouse's.

An environment is a folder in the data folder. It counts as installed once its marker is written, so an installation that was killed
is never used. The next one continues it: the folder and pip's cache of downloads stay.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import CommandError
from cli.output import Output
from shared.data_folder import open_data_folder
from shared.errors import ModelUnavailable
from shared.models.catalogue import VLLM
from shared.settings import Settings
from workers.gpu.engine_client.engine_interpreter import (
    MARKER,
    EngineInterpreter,
    environment_folder,
    environment_interpreter,
    find_interpreter,
)

REQUIREMENTS = {VLLM: "vllm==0.32.0"}
"""What is installed by default: the version that is tested with Enginehouse."""
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_STEP = re.compile(r"\s*(Collecting|Downloading|Using cached|Building wheel|Installing collected packages)\b[^\n]*")
PROBE_SECONDS = 300.0


@dataclass(frozen=True)
class EngineEnvironment:
    """An engine and the environment that runs it."""

    name: str
    state: str
    version: str
    python: str

    @property
    def raw(self) -> dict[str, Any]:
        return asdict(self)


def add_engine(settings: Settings, engine: str, requirement: str | None) -> None:
    """Make the environment of an engine, or continue making it. Raises CommandError if that fails."""
    open_data_folder(settings.data_dir)
    folder = environment_folder(engine, settings)
    requirement = requirement or REQUIREMENTS[engine]
    (folder / MARKER).unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)], f"The environment {folder} could not be made")
    interpreter = environment_interpreter(engine, settings)
    _install(interpreter.path, requirement)
    problems, version = _probe(interpreter, engine)
    # A missing GPU is not a fault here: the environment may be created before the GPU is installed.
    if version is None:
        raise CommandError(f"{requirement} did not install the engine {engine}: {' '.join(problems)}")
    (folder / MARKER).write_text(json.dumps({"requirement": requirement, "version": version}))
    print(f"{engine} {version} is installed in {folder}")
    for problem in problems:
        print(f"  {problem}")


def remove_engine(settings: Settings, engine: str) -> None:
    """Delete the environment of an engine."""
    folder = environment_folder(engine, settings)
    if not folder.exists():
        raise CommandError(f"The engine {engine} has no environment in {settings.data_dir}.")
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder)
    print(f"{folder} is deleted")


def list_engines(settings: Settings, out: Output) -> None:
    """Print all engines, and the interpreters that run them."""
    out.print_list(
        ("engine", "state", "version", "interpreter"),
        list(_environments(settings)),
        lambda one: (one.name, one.state, one.version, one.python),
    )


def check_engine(settings: Settings, engine: str, out: Output) -> bool:
    """Print what an engine lacks on this machine; return whether it can run."""
    try:
        interpreter = find_interpreter(engine, settings)
    except ModelUnavailable as error:
        raise CommandError(error.message) from None
    problems, version = _probe(interpreter, engine)
    if out.as_json:
        out.print_json({"engine": engine, "version": version, "python": interpreter.path, "problems": problems})
    else:
        print(f"{engine} {version or '(not found)'} in {interpreter.path}: {'cannot run' if problems else 'ready'}")
        for problem in problems:
            print(f"  {problem}")
    return not problems


def _environments(settings: Settings) -> Iterator[EngineEnvironment]:
    for engine in REQUIREMENTS:
        folder = environment_folder(engine, settings)
        try:
            python = find_interpreter(engine, settings).path
        except ModelUnavailable:
            yield EngineEnvironment(engine, "incomplete" if folder.exists() else "not installed", "", "")
            continue
        marker = folder / MARKER
        is_own = python == str(folder / "bin" / "python")
        version = str(json.loads(marker.read_text())["version"]) if is_own else ""
        yield EngineEnvironment(engine, "installed" if is_own else "external", version, python)


def _probe(interpreter: EngineInterpreter, engine: str) -> tuple[list[str], str | None]:
    """What is wrong with an environment, and the version of the engine in it."""
    command = [interpreter.path, "-m", f"workers.gpu.engine.{engine}_probe"]
    try:
        done = subprocess.run(
            command, env=interpreter.environment(), capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
        result = json.loads(done.stdout.splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        return [f"{interpreter.path} cannot run the probe: {type(error).__name__}: {error}"], None
    return list(result["problems"]), result["version"]


def _install(python: str, requirement: str) -> None:
    """Run pip, with a bar for each download on a terminal and a line for each step elsewhere."""
    version = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, text=True, check=False).stdout.split()
    # Older ones show their progress on a terminal alone.
    has_raw_bar = len(version) > 1 and tuple(map(int, re.findall(r"\d+", version[1])[:2])) >= (24, 1)
    command = [python, "-m", "pip", "install", "--progress-bar", "raw" if has_raw_bar else "off"]
    command += ["--disable-pip-version-check", requirement]
    console = Console()
    columns = (BarColumn(), DownloadColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    lines: list[str] = []
    with (
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip,
    ):
        bar = progress.add_task("starting pip", total=None)
        assert pip.stdout is not None
        for line in pip.stdout:
            if found := _PROGRESS.match(line):
                progress.update(bar, completed=int(found[1]), total=int(found[2]))
                continue
            lines.append(line.rstrip())
            if _STEP.match(line):
                progress.update(bar, description=line.strip()[:80])
                if not console.is_terminal:
                    print(line.strip(), flush=True)
    if pip.returncode:
        last = "\n".join(lines[-12:])
        raise CommandError(f"pip could not install {requirement}; run the command again to continue. It ended with:\n{last}")


def _run(command: list[str], problem: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(f"{problem}: {(done.stderr or done.stdout).strip()[-500:]}")
