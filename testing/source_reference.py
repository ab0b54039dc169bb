"""A PDF of more than fifty pages, made of this repository's docstrings, settings and Lua headers: a long document for tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cli.local.pdf_writer import PdfDocument
from testing.repository import REPOSITORY

PACKAGES = ("api", "cli", "shared", "workers")


def source_reference() -> PdfDocument:
    """The docstrings of every setting, module and script; each module starts a new page."""
    document = PdfDocument("Enginehouse source reference")
    document.add_heading("Enginehouse source reference")
    document.add_paragraph("The documentation of each setting, module and Redis script of Enginehouse, taken from its source.")
    _add_settings(document)
    for path in _sources("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        summary = ast.get_docstring(tree)
        if summary:
            document.add_page()
            document.add_heading(f"Module {path.relative_to(REPOSITORY).with_suffix('').as_posix().replace('/', '.')}")
            document.add_paragraph(summary)
            for signature, docstring in _public(tree.body):
                document.add_code(signature)
                document.add_paragraph(docstring)
    for path in _sources("*.lua"):
        header = re.match(r"(?:--.*\n)+", path.read_text(encoding="utf-8"))
        if header:
            document.add_page()
            document.add_heading(f"Redis script {path.relative_to(REPOSITORY).as_posix()}")
            document.add_code(re.sub(r"^-- ?", "", header[0], flags=re.MULTILINE))
    return document


def _add_settings(document: PdfDocument) -> None:
    tree = ast.parse((REPOSITORY / "shared/settings.py").read_text(encoding="utf-8"))
    document.add_heading("Settings", 2)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "setting":
            name, default, docstring = call.args
            document.add_paragraph(f"{ast.literal_eval(name)} (default {ast.unparse(default)}): {ast.literal_eval(docstring)}")


def _sources(pattern: str) -> list[Path]:
    return [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob(pattern))]


def _public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            docstring = ast.get_docstring(node)
            if isinstance(node, ast.FunctionDef):
                if docstring:
                    yield f"{owner}{node.name}({ast.unparse(node.args)})", docstring
            else:
                if docstring:
                    yield f"class {node.name}", docstring
                yield from _public(node.body, f"{node.name}.")
