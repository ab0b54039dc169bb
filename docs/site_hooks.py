"""Hooks of MkDocs: pages that the repository keeps outside of docs/, and links that work on a code host and in the site.

Pages link files by their paths in the repository, so that they also work on a code host. Here each link gets the place of its target
in the site. A link to a file that the site does not have is a warning, which `--strict` turns into an error.
"""

import ast
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
log = logging.getLogger("mkdocs.hooks.enginehouse")

# Files of the repository outside of docs/, and their places in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "client/README.md": "client.md",
}
PROGRAMS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*.*")}
PLACES = {
    **PAGES,
    **{name: name for name in (*PROGRAMS, "LICENSE")},
    "examples": "examples.md",
    "docs/decisions": "decisions/index.md",
}
SOURCES = {place: source for source, place in PAGES.items()}

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(?=[)#])")
COMMENT = re.compile(r"^<!--.*?-->$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the decisions in the navigation, and give headings the anchors that code hosts give them."""
    assert config.nav is not None
    decisions = [{"All decisions": "decisions/index.md"}, *(f"decisions/{path.name}" for path in decision_files())]
    [entry] = [entry for entry in config.nav if "Decisions" in entry]
    entry["Decisions"] = decisions
    config.mdx_configs["toc"]["slugify"] = anchor
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of other folders, the example programs, and lists of programs and decisions."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in sorted({*PROGRAMS, "LICENSE"}):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "examples.md", content=list_of_examples()))
    files.append(File.generated(config, "decisions/index.md", content=list_of_decisions()))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point links at the places of their targets. Comments mark generated tables, and would join the table that follows."""
    place = page.file.src_uri
    source = SOURCES.get(place, f"docs/{place}")

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target not in PLACES and not target.startswith("docs/"):
            log.warning("%s links %s, which the site does not have; add it to docs/site_hooks.py", source, target)
        return posixpath.relpath(PLACES.get(target, target.removeprefix("docs/")), posixpath.dirname(place) or ".")

    if place in ("examples.md", "decisions/index.md"):
        return markdown
    return LINK.sub(replaced, COMMENT.sub("\n", markdown))


def anchor(heading: str, separator: str) -> str:
    """The anchor of a heading. It keeps a placeholder such as `<job>`, which other slug functions treat as a tag."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def decision_files() -> list[Path]:
    return sorted((ROOT / "docs" / "decisions").glob("*.md"))


def list_of_decisions() -> str:
    titles = {path.name: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for path in decision_files()}
    entries = "\n".join(f"* [{title}]({name})" for name, title in titles.items())
    return f"# Decisions\n\nWhat was decided, the alternatives, and the measurements behind it.\n\n{entries}\n"


def list_of_examples() -> str:
    parts = ["# Examples\n\nEach program runs against a server at `http://127.0.0.1:5000`, or at `ENGINEHOUSE_URL`.\n"]
    for name in sorted(PROGRAMS):
        text = (ROOT / name).read_text(encoding="utf-8")
        purpose, language = "", "sh"
        if name.endswith(".py"):
            purpose, language = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0], "python"
        parts.append(f"## {posixpath.basename(name)}\n\n{purpose} [Download]({name})\n\n````{language}\n{text}````\n")
    return "\n".join(parts)
