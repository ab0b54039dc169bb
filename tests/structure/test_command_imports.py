"""The command starts fast, as it imports libraries only when a subcommand needs them."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "chromadb", "numpy", "sentence_transformers", "celery")


def test_the_command_and_supervisor_import_no_heavy_library() -> None:
    code = f"import sys, cli.main, cli.local.stack, cli.local.demo; sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_help_and_completion_import_only_the_parser() -> None:
    """Shell completion runs the command for every press of the Tab key."""
    late = ("httpx2", "enginehouse_client", "rich", "redis", "flask", "pydantic")
    code = f"import sys, cli.main; sys.exit(' '.join(name for name in {late!r} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
