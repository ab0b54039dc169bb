"""Packages are pinned by version and hash, and images by digest."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from testing.repository import REPOSITORY

PINS = (REPOSITORY / "constraints.txt").read_text()
HASHES = (REPOSITORY / "deploy" / "hashes.txt").read_text()
DIGEST = "sha256:" + "0" * 64


def names(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    return {re.sub(r"[._-]+", "-", name).lower(): version for name, version in found}


def test_every_pinned_package_but_torch_has_hashes() -> None:
    pinned = names(PINS)
    del pinned["torch"]
    assert names(HASHES) == pinned
    for block in re.split(r"^(?=[\w-]+==)", HASHES, flags=re.MULTILINE)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block


@pytest.mark.parametrize("extras", [["all"], ["flower"], ["gpu"], ["cpu"], ["all", "gpl-formats"], ["otel"]])
def test_every_dependency_is_pinned(extras: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    monkeypatch.syspath_prepend(str(REPOSITORY / "deploy"))
    import install

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    needed = install.dependencies(project, extras)
    assert len(needed) > 10
    unpinned = {re.sub(r"[._-]+", "-", re.match(r"[\w.-]+", item)[0]).lower() for item in needed} - names(PINS).keys()  # type: ignore[index]
    assert unpinned == set()


def test_every_image_of_others_has_a_digest() -> None:
    files = ("docker-compose.yml", "deploy/Dockerfile", "deploy/chart/values.yaml")
    text = "\n".join((REPOSITORY / name).read_text() for name in files)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
    images = [image for image in re.findall(r"^(?:\s*image: |FROM )([^$\s]\S*)", text, re.MULTILINE) if image not in stages]
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"(redis|python):[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_make_digests_pins_images_by_the_digest_of_the_registry(tmp_path: Path) -> None:
    """With a stand-in for Docker, as no registry can be reached in a test."""
    for name in ("docker-compose.yml", "deploy/Dockerfile", "deploy/chart/values.yaml", "deploy/pin_images.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho {DIGEST}\n")
    docker.chmod(0o755)
    for _ in range(2):
        command = [sys.executable, tmp_path / "deploy" / "pin_images.py"]
        done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == [f"redis:8.2-bookworm@{DIGEST}", f"python:3.11-slim-bookworm@{DIGEST}"]
    compose = (tmp_path / "docker-compose.yml").read_text()
    assert compose.count(f"image: redis:8.2-bookworm@{DIGEST}\n") == 1
    assert "image: ${IMAGE_REGISTRY:-}enginehouse-cpu:${IMAGE_TAG:-0.1.0}\n" in compose
    assert f"image: redis:8.2-bookworm@{DIGEST}\n" in (tmp_path / "deploy" / "chart" / "values.yaml").read_text()
    assert f"FROM python:3.11-slim-bookworm@{DIGEST} AS ground\n" in (tmp_path / "deploy" / "Dockerfile").read_text()
    docker.write_text("#!/bin/sh\necho denied >&2; exit 1\n")
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "denied" in done.stderr) == (1, True)
