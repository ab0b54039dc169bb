"""The Python that runs a model's engine process: this one, or for vLLM one with packages of other versions.

``enginehouse engines add`` makes such an environment in the data folder. Its interpreter finds the code of Enginehouse in a folder
that has little else, so that no library of this environment is mixed with its own.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from shared.errors import ModelUnavailable
from shared.models.catalogue import VLLM
from shared.packaged_files import CODE_ROOT
from shared.settings import Settings

MARKER = "enginehouse.json"
"""In the folder of an environment whose installation is complete."""
PACKAGES = ("shared", "workers")
LIBRARIES = ("pynvml",)
"""Libraries of this environment that an engine needs beside its own: one file each, without dependencies."""
# A folder called `workers` in the working directory must not hide ours.
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}
# Paths of this environment, which another interpreter must not search.
_OWN_PATHS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


@dataclass(frozen=True)
class EngineInterpreter:
    """A Python interpreter, and the variables to set for it; those in ``without`` are removed."""

    path: str
    variables: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """The environment of a process of this interpreter."""
        return {name: value for name, value in os.environ.items() if name not in self.without} | dict(self.variables)


def environment_folder(engine: str, settings: Settings) -> Path:
    """Where ``enginehouse engines add`` makes the environment of an engine."""
    return settings.data_dir.resolve() / "engines" / engine


def find_interpreter(engine: str, settings: Settings) -> EngineInterpreter:
    """The interpreter for an engine. Raises ModelUnavailable if its environment is missing."""
    if engine != VLLM:
        return EngineInterpreter(sys.executable)
    if settings.vllm_python is not None:
        if not os.access(settings.vllm_python, os.X_OK):
            raise ModelUnavailable(f"ENGINEHOUSE_VLLM_PYTHON is {settings.vllm_python}, which is not an executable file.")
        code = link_code(environment_folder(VLLM, settings).parent)
        paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
        return EngineInterpreter(str(settings.vllm_python), {"PYTHONPATH": os.pathsep.join(paths), **_SAFE_PATH})
    if (environment_folder(VLLM, settings) / MARKER).exists():
        return environment_interpreter(VLLM, settings)
    if find_spec("vllm") is not None:
        return EngineInterpreter(sys.executable)
    raise ModelUnavailable(
        "The engine vllm is not installed. Run `enginehouse engines add vllm` on this machine, or set ENGINEHOUSE_VLLM_PYTHON to the "
        "interpreter of an environment that has it."
    )


def environment_interpreter(engine: str, settings: Settings) -> EngineInterpreter:
    """The interpreter of an environment that ``enginehouse engines add`` makes, whether it is complete or not."""
    folder = environment_folder(engine, settings)
    return EngineInterpreter(
        str(folder / "bin" / "python"), {"PYTHONPATH": str(link_code(folder.parent)), **_SAFE_PATH}, _OWN_PATHS
    )


def link_code(folder: Path) -> Path:
    """A folder with links to Enginehouse's own packages and the few libraries that an engine needs beside its own."""
    code = folder / "code"
    code.mkdir(parents=True, exist_ok=True)
    targets = [CODE_ROOT / name for name in PACKAGES]
    targets += [Path(spec.origin) for spec in map(find_spec, LIBRARIES) if spec is not None and spec.origin]
    for target in targets:
        link = code / target.name
        if not link.is_symlink() or link.readlink() != target:
            # Another worker may do the same now.
            new = code / f".{target.name}.{os.getpid()}"
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.replace(link)
    return code
