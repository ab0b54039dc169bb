"""The command starts fast: what its help and its supervisor load is named here."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "chromadb", "numpy", "sentence_transformers", "celery")


def test_the_command_loads_nothing_heavy() -> None:
    code = f"import sys, cli.main, cli.local.stack, cli.local.demo; sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_only_one_command_needs_is_loaded_by_it() -> None:
    """Completion by the shell runs the command for each press of a key."""
    late = ("httpx2", "enginehouse_client", "rich", "redis", "flask", "pydantic")
    code = f"import sys, cli.main; sys.exit(' '.join(name for name in {late!r} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
