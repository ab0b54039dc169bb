"""Create the virtual environment: `python3 deploy/install.py [EXTRA…] [--dev]`, as `make setup` and `make test` do.

With `--image` it installs into the running Python instead, for the Dockerfile.

Uses only the standard library and shows progress throughout. pip checks the hash of every file, except of torch, whose builds for CPU and
CUDA come from several indexes. torch is installed before what needs it, at its exact version, as a resolver that is free to choose would
pick a newer one with gigabytes of libraries.
"""

import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
HASHES = ROOT / "deploy" / "hashes.txt"
# Installed before torch, with checked hashes, so that only torch itself and NVIDIA's libraries are unchecked.
TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "numpy", "setuptools", "sympy", "typing-extensions")
# Some libraries carry files that are not for this version of Python, and compileall as a command would fail at those. Left out, a third
# of all code: Chroma's client of Kubernetes, which nothing imports, and the models of transformers, of which a process loads one or two.
COMPILE = (
    "import compileall, re, sysconfig; left_out = re.compile('/tests?/|/kubernetes/|/transformers/models/(?!auto/)'); "
    "compileall.compile_dir(sysconfig.get_path('purelib'), workers=0, rx=left_out)"
)
OLDEST = (3, 11)
# How often progress is shown: on a terminal, and elsewhere; there, also without news after STILL_WORKING_SECONDS.
TERMINAL_SECONDS, LINE_SECONDS, STILL_WORKING_SECONDS = 0.2, 10.0, 60.0


def main() -> None:
    """Create the environment if it does not exist, and install whatever is missing."""
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Enginehouse needs Python 3.11 or newer; {sys.executable} is {version}. Try: make PYTHON=python3.12")
    import tomllib  # new in Python 3.11, so only after the check above

    image = "--image" in sys.argv
    python = Path(sys.executable) if image else VENV / "bin" / "python"
    extras = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())
    # pip has --group only from 25.1 on.
    tools = project["dependency-groups"]["dev"] if "--dev" in sys.argv else []
    # editables is what hatchling needs for an editable installation.
    build = [*project["build-system"]["requires"], "editables"]
    needed = [*build, *dependencies(project, extras), *client["project"]["dependencies"], *tools]
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    # pip would compile the modules one by one; the last step does it on all cores.
    pip.append("--no-compile")
    if not image and not python.exists():
        print(
            "Installing Enginehouse with PyTorch, transformers, Chroma, Redis and a small model into .venv: about 2.3 GB, "
            "which takes some minutes.",
            flush=True,
        )
        step("1/5 virtual environment", [sys.executable, "-m", "venv", str(VENV)], "On Debian, install the package python3-venv.")
    # Earlier versions of pip ignore hashes in a constraints file.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(hashed("pip"))
        requirements.flush()
        step("2/5 pip", [*pip, "--requirement", requirements.name])
    checked = [*pip, "--constraint", str(HASHES)]
    if any(name.startswith("torch==") for name in needed):
        known = {line.split("==")[0] for line in HASHES.read_text().splitlines()}
        step("3/5 what torch needs", [*checked, *(name for name in TORCH_NEEDS if name in known)])
        index = os.environ.get("TORCH_INDEX")
        step("3/5 " + torch, [*pip, *(["--index-url", index] if index else []), torch])
    step("4/5 libraries", [*checked, *needed])
    # Folders have no hash; the tools that build them are among the libraries.
    own = [str(ROOT), str(ROOT / "client")]
    editable = own if image else [word for folder in own for word in ("--editable", folder)]
    step("4/5 Enginehouse", [*pip, "--no-deps", "--no-build-isolation", *editable])
    # Modules that are not compiled make the first start take most of a minute. Tests of libraries are never imported.
    step("5/5 compiling", [str(python), "-c", COMPILE])


def dependencies(project: dict[str, Any], extras: Iterable[str]) -> list[str]:
    """Requirements of the project with these extras, without those that are folders of this repository."""
    found = list(project["project"]["dependencies"])
    for extra in extras:
        for requirement in project["project"]["optional-dependencies"][extra]:
            nested = re.fullmatch(r"enginehouse\[([\w,-]+)\]", requirement)
            found += dependencies(project, nested[1].split(",")) if nested else [requirement]
    return [requirement for requirement in dict.fromkeys(found) if not requirement.startswith("enginehouse")]


def hashed(name: str) -> str:
    """The lines of the hashes file for one package, which are a requirements file."""
    match = re.search(rf"^{name}==.*?(?=^\S|\Z)", HASHES.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None, f"{HASHES} has no {name}; run make lock"
    return match[0]


def step(title: str, command: list[str], advice: str = "The lines above give the reason; fix it and run this again.") -> None:
    """Run a command and show its elapsed time and current activity; exit with its last lines if it fails."""
    started, shown_at, shown = time.monotonic(), 0.0, ""
    activity = "working"
    lines: list[str] = []
    terminal = sys.stdout.isatty()
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
                for line in complete:
                    lines.append(line.strip())
                    activity = describe(lines[-1]) or activity
            now = time.monotonic()
            interval = TERMINAL_SECONDS if terminal else LINE_SECONDS if activity != shown else STILL_WORKING_SECONDS
            if now - shown_at >= interval:
                repeated = not terminal and activity == shown
                show(f"[{title}] {now - started:.0f} s: {'still ' * repeated}{activity}", terminal)
                shown_at, shown = now, activity
    if process.wait() != 0:
        show("", terminal)
        print("\n".join([*lines, rest][-30:]), file=sys.stderr)
        sys.exit(f"[{title}] failed. {advice}")
    show(f"[{title}] done in {time.monotonic() - started:.0f} s", terminal)
    if terminal:
        print()


def describe(line: str) -> str:
    """What pip is doing, from a line of its output; empty if the line does not say."""
    if line.startswith("Installing collected packages: "):
        return f"installing {line.count(',') + 1} packages"
    if match := re.match(r"Compiling '.*?/(?:site|dist)-packages/([^/.]+)", line):
        return f"compiling {match[1]}"
    if match := re.match(
        r"(Collecting|Downloading|Building wheel for|Building editable for|Preparing metadata|Installing build dependencies)\b *(.*)",
        line,
    ):
        # A requirement without its versions, a file without its tags and its folder.
        subject = re.split(r"[ (<>=!~;\[]|-py\d|-cp\d", match[2].strip())[0].rpartition("/")[2] if match[2] else ""
        size = re.search(r"\(([\d.]+ [kMG]B)\)$", line)
        return " ".join(filter(None, (match[1][0].lower() + match[1][1:], subject.rstrip(":"), size and f"({size[1]})")))
    return ""


def show(text: str, terminal: bool) -> None:
    """Print one progress line; on a terminal it replaces the previous one."""
    if terminal:
        text = f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}"
    print(text, end="" if terminal else "\n", flush=True)


if __name__ == "__main__":
    main()
