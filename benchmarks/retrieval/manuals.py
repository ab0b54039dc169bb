"""The manuals: downloaded as Debian packages, unpacked, and compared with the hashes in ``manuals.json``."""

import gzip
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_name("manuals.json")


def fetch_manuals(folder: Path) -> list[Path]:
    """The PDFs of all manuals, in ``folder``. Packages are downloaded with ``apt-get download`` unless their files are there."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Path] = []
    for package in json.loads(LIST.read_text(encoding="utf-8")):
        paths = [folder / str(file["name"]) for file in package["files"]]
        if not all(path.exists() for path in paths):
            _unpack(package, folder)
        for path, file in zip(paths, package["files"], strict=True):
            if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
                raise SystemExit(
                    f"{path} is not the {file['name']} of {package['package']} {package['version']} whose pages the questions name. "
                    "Delete it to download it again."
                )
        found += paths
    return found


def manuals_collection(files: Sequence[Path], chunk_tokens: int) -> str:
    """The name of the collection with exactly these manuals, as others would take places among the hits."""
    return f"manuals-{digest(sorted(path.name for path in files))}-{chunk_tokens}"


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def _unpack(package: Mapping[str, Any], folder: Path) -> None:
    name, version = package["package"], package["version"]
    with tempfile.TemporaryDirectory() as temporary:
        _run(["apt-get", "download", f"{name}={version}"], temporary, f"Package {name} {version} cannot be downloaded")
        [archive] = Path(temporary).glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), "files"], temporary, f"Package {name} cannot be unpacked")
        for file in package["files"]:
            data = Path(temporary, "files", file["path"]).read_bytes()
            (folder / file["name"]).write_bytes(gzip.decompress(data) if file["path"].endswith(".gz") else data)


def _run(command: list[str], folder: str, failure: str) -> None:
    hint = "The manuals are packages of Debian 12, whose package sources this machine needs; or copy the files of manuals.json into place."
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SystemExit(f"{failure}: {command[0]} is not installed. {hint}") from None
    if done.returncode != 0:
        raise SystemExit(f"{failure}: {done.stderr.strip()[-500:]}\n{hint}")
