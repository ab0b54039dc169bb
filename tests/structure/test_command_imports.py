"""The command starts fast, as it imports libraries only when a subcommand needs them."""

import subprocess
import sys
from pathlib import Path

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


def test_the_health_check_imports_only_the_standard_library_and_ours(tmp_path: Path) -> None:
    """Containers run it every few seconds beside each worker."""
    code = (
        "import sys; at_start = set(sys.modules)\n"
        "from cli.entry import quick_healthcheck\n"
        f"assert quick_healthcheck(['healthcheck', '--data', {str(tmp_path)!r}]) == 1\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - at_start}\n"
        "sys.exit(' '.join(sorted(names - sys.stdlib_module_names - {'cli', 'shared'})) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "No worker runs on host" in done.stderr
