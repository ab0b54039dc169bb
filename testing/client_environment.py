"""The environment of clients that cannot share the one of the tests, such as lm-eval and LlamaIndex; `make test` creates it."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testing.missing_services import missing_service
from testing.repository import REPOSITORY

_BIN = REPOSITORY / ".venv-clients" / "bin"
# On a very busy machine, a call that takes half a minute has taken several.
_SECONDS = 500


def run_client(command: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command of the environment in ``folder``, without access to the hub, and return its output.

    Skips the test if the environment is missing.
    """
    if not (_BIN.parent / ".installed").exists():
        missing_service("there is no .venv-clients; create it with: make .venv-clients/.installed")
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    variables |= {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **(environment or {})}
    done = subprocess.run(
        [str(_BIN / command), *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=_SECONDS
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
