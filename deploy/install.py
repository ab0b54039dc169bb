"""Create the virtual environment: `python3 deploy/install.py [EXTRA…] [--dev]`, as `make setup` and `make test` do.

Uses only the standard library and shows progress throughout. torch is installed first, at its exact version, as a resolver that
is free to choose would pick a newer one with gigabytes of libraries.
"""

import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = (3, 11)
# How pip begins the lines that say what it is doing.
ACTIVITIES = ("Collecting", "Downloading", "Installing", "Building", "Preparing")


def main() -> None:
    """Create the environment if it does not exist, and install whatever is missing."""
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Enginehouse needs Python 3.11 or newer; {sys.executable} is {version}. Try: make PYTHON=python3.12")
    python = VENV / "bin" / "python"
    extras = ",".join(argument for argument in sys.argv[1:] if argument != "--dev")
    import tomllib  # new in Python 3.11, so only after the check above

    # pip has --group only from 25.1 on, and a new environment may have an older one.
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"] if "--dev" in sys.argv else []
    # The client is a distribution of its own that no registry has, so pip must get both at once.
    client = ["--editable", str(ROOT / "client")]
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    if not python.exists():
        step("1/3 virtual environment", [sys.executable, "-m", "venv", str(VENV)], "On Debian, install the package python3-venv.")
    step("2/3 " + torch, [*pip, torch])
    step(
        "3/3 Enginehouse and its libraries",
        [*pip, "--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[{extras}]", *client, *tools],
    )


def step(title: str, command: list[str], advice: str = "The lines above give the reason; fix it and run this again.") -> None:
    """Run a command and show its elapsed time and current step; exit with its last lines if it fails."""
    started, shown_at, activity = time.monotonic(), 0.0, ""
    lines: list[str] = []
    terminal = sys.stdout.isatty()
    every = 0.2 if terminal else 10.0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        rest, data = "", b" "
        while data:
            if selector.select(0.2):
                data = os.read(process.stdout.fileno(), 65536)
                *complete, rest = (rest + data.decode(errors="replace")).split("\n")
                lines += [line.strip() for line in complete]
                activities = [line for line in lines[-20:] if line.startswith(ACTIVITIES)]
                activity = activities[-1][:60] if activities else activity
            if time.monotonic() - shown_at >= every:
                shown_at = time.monotonic()
                show(f"[{title}] {shown_at - started:.0f} s {activity}", terminal)
    if process.wait() != 0:
        show("", terminal)
        print("\n".join([*lines, rest][-30:]), file=sys.stderr)
        sys.exit(f"[{title}] failed. {advice}")
    show(f"[{title}] done in {time.monotonic() - started:.0f} s", terminal)
    if terminal:
        print()


def show(text: str, terminal: bool) -> None:
    """Print one progress line; on a terminal it replaces the previous one."""
    print(f"\r\033[K{text}" if terminal else text, end="" if terminal else "\n", flush=True)


if __name__ == "__main__":
    main()
