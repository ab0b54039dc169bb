"""Makes the virtual environment: `python3 deploy/install.py [EXTRA…]`, as `make setup` and `make test` do.

Uses nothing but the standard library, and says what it is doing all the while. torch goes first, by its exact version,
as a resolver that may choose brings a newer one with gigabytes of libraries.
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


def main() -> None:
    """Create the environment if there is none, and install into it what is missing."""
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Enginehouse needs Python 3.11 or newer; {sys.executable} is {version}. Try: make PYTHON=python3.12")
    python = VENV / "bin" / "python"
    extras = ",".join(sys.argv[1:])
    # The command stands on the client, a distribution of its own that no registry has: pip must see both in one go.
    client = ["--editable", str(ROOT / "client")]
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    if not python.exists():
        step("1/3 virtual environment", [sys.executable, "-m", "venv", str(VENV)], "Debian has venv in its package python3-venv.")
    step("2/3 " + torch, [*pip, torch])
    step(
        "3/3 Enginehouse and its libraries", [*pip, "--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[{extras}]", *client]
    )


def step(title: str, command: list[str], advice: str = "The lines above say why; run it again once that is mended.") -> None:
    """Run a command, showing how long it has taken and what it does; exit with its last lines if it fails."""
    started, shown, said = time.monotonic(), 0.0, ""
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
                *whole, rest = (rest + data.decode(errors="replace")).split("\n")
                lines += [line.strip() for line in whole]
                doing = [
                    line
                    for line in lines[-20:]
                    if line.startswith(("Collecting", "Downloading", "Installing", "Building", "Preparing"))
                ]
                said = doing[-1][:60] if doing else said
            if time.monotonic() - shown >= every:
                shown = time.monotonic()
                show(f"[{title}] {shown - started:.0f} s {said}", terminal)
    if process.wait() != 0:
        show("", terminal)
        print("\n".join([*lines, rest][-30:]), file=sys.stderr)
        sys.exit(f"[{title}] failed. {advice}")
    show(f"[{title}] done in {time.monotonic() - started:.0f} s", terminal)
    if terminal:
        print()


def show(text: str, terminal: bool) -> None:
    """One progress line, in place of the last one where the output is a terminal."""
    print(f"\r\033[K{text}" if terminal else text, end="" if terminal else "\n", flush=True)


if __name__ == "__main__":
    main()
