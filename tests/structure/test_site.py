"""The documentation as a site: it builds without a warning, links have targets, and it loads nothing from elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testing.repository import REPOSITORY

SOURCES = ("mkdocs.yml", "docs", "examples", "client/README.md", "LICENSE", *(path.name for path in REPOSITORY.glob("*.md")))


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", project / "mkdocs.yml", "--site-dir", site]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_site_and_can_be_searched(site: Path) -> None:
    pages = {path.relative_to(REPOSITORY / "docs").with_suffix(".html") for path in (REPOSITORY / "docs").rglob("*.md")}
    pages |= {Path(name) for name in ("index.html", "changelog.html", "contributing.html", "security-policy.html", "client.html")}
    assert [page for page in sorted(pages) if not (site / page).exists()] == []
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert {str(page) for page in pages} <= {entry["location"].partition("#")[0] or "index.html" for entry in index["docs"]}


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r"""<(?:script|img|iframe)[^>]*\ssrc="https?:[^"]*|<link[^>]*\shref="https?:[^"]*""")
    found = {str(page.relative_to(site)): loaded.findall(page.read_text()) for page in site.rglob("*.html")}
    assert len(found) > 40
    assert {page: urls for page, urls in found.items() if urls} == {}
    assert [style for style in site.rglob("*.css") if re.search(r"url\([\"']?https?:|@import", style.read_text())] == []


def test_every_table_is_rendered(site: Path) -> None:
    for page in sorted((REPOSITORY / "docs").rglob("*.md")):
        tables = re.findall(r"^\|[|:-]+\|$", page.read_text(), re.MULTILINE)
        rendered = site / page.relative_to(REPOSITORY / "docs").with_suffix(".html")
        assert rendered.read_text().count("<table>") == len(tables), page.name


def test_a_link_without_a_target_stops_the_build(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in SOURCES:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, project / name)
    with (project / "README.md").open("a") as page:
        page.write("\n[a](docs/operations.md#no-such-section) [b](docs/no-such-page.md) [c](Makefile)\n")
    (project / "docs" / "forgotten.md").write_text("# Not in the navigation\n")
    done = build(project, tmp_path / "site")
    assert done.returncode == 1
    for reason in ("#no-such-section", "no-such-page.md", "Makefile", "forgotten.md"):
        assert reason in done.stderr, done.stderr
