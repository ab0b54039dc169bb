"""Makes the PDFs that the demonstration ingests, from this repository's own texts.

One PDF for each Markdown file of ``examples/documents``, ``docs`` and the top folder, and a source reference of well over
fifty pages from the settings, the docstrings and the headers of the Lua scripts. The same texts give the same bytes.

    python examples/make_pdfs.py FOLDER
"""

import ast
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("api", "cli", "shared", "workers")
DATE = datetime(2026, 1, 1, tzinfo=UTC)

# The fonts that every PDF reader has know Latin-1 alone.
_PLAIN = str.maketrans(
    {
        "→": "->",
        "≥": ">=",
        "≤": "<=",
        "≈": "~",
        "…": "...",
        "•": "*",
        "“": '"',
        "”": '"',
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    }
)
_MARKS = re.compile(r"\*\*|`|^\s*[-*] (?=\S)|!?\[([^\]]*)\]\([^)]*\)")


class Paper(FPDF):
    """An A4 document with numbered pages."""

    def __init__(self, title: str) -> None:
        super().__init__(format="A4")
        self.set_title(title)
        self.set_creation_date(DATE)
        self.set_margin(22)
        self.set_auto_page_break(True, margin=25)
        self.add_page()

    def footer(self) -> None:
        self.set_y(-15)
        self.set_font("Helvetica", size=9)
        self.cell(0, 8, str(self.page_no()), align="C")

    def heading(self, text: str, level: int = 1) -> None:
        self.ln(2)
        self._write(text, "Helvetica", "B", {1: 18, 2: 14}.get(level, 12))
        self.ln(1)

    def paragraph(self, text: str) -> None:
        self._write(text, "Helvetica", "", 11)
        self.ln(2)

    def code(self, text: str) -> None:
        self._write(text, "Courier", "", 9)
        self.ln(2)

    def _write(self, text: str, family: str, style: str, size: int) -> None:
        self.set_font(family, style, size)
        plain = text.translate(_PLAIN).encode("latin-1", "replace").decode("latin-1")
        self.multi_cell(0, size * 0.5, plain, new_x="LMARGIN", new_y="NEXT", align="L")


# Papers written for readers, beside the reference that is made of the source.
PLACES = ("examples/documents/*.md", "docs/architecture.md", "docs/glossary.md")


def make_pdfs(folder: Path) -> list[Path]:
    """Write the PDFs into ``folder``, which is made when missing; their paths, the longest document last."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [path for place in PLACES for path in sorted(REPOSITORY.glob(place))]
    made = []
    for source in sources:
        target = folder / f"{source.stem.lower()}.pdf"
        paper_from_markdown(source.read_text(encoding="utf-8"), source.stem).output(str(target))
        made.append(target)
    target = folder / "source-reference.pdf"
    source_reference().output(str(target))
    return [*made, target]


def paper_from_markdown(text: str, title: str) -> Paper:
    """The words of a Markdown text: headings, paragraphs, lists and code; tables keep their lines."""
    paper = Paper(title)
    for number, block in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        if number % 2:
            paper.code(block.strip("\n"))
            continue
        for piece in re.split(r"\n\s*\n", block):
            heading = re.match(r"(#+) +(.*)", piece.strip())
            if heading:
                paper.heading(_MARKS.sub(r"\1", heading[2]), len(heading[1]))
                piece = piece.strip()[heading.end() :]
            lines = [_MARKS.sub(r"\1", line).strip() for line in piece.strip().splitlines()]
            if any(lines):
                listed = re.search(r"^\s*([-*|]|\d+\.) ?", piece, re.MULTILINE)
                paper.paragraph(("\n" if listed else " ").join(lines))
    return paper


def source_reference() -> Paper:
    """What every setting, module and script says of itself, one page or more for each."""
    paper = Paper("Enginehouse source reference")
    paper.heading("Enginehouse source reference")
    paper.paragraph("What each setting, module and Redis script of Enginehouse says of itself, taken from its source.")
    _settings(paper)
    for path in _sources("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        summary = ast.get_docstring(tree)
        if summary:
            paper.add_page()
            paper.heading(f"Module {path.relative_to(REPOSITORY).with_suffix('').as_posix().replace('/', '.')}")
            paper.paragraph(summary)
            for signature, words in _public(tree.body):
                paper.code(signature)
                paper.paragraph(words)
    for path in _sources("*.lua"):
        header = re.match(r"(?:--.*\n)+", path.read_text(encoding="utf-8"))
        if header:
            paper.add_page()
            paper.heading(f"Redis script {path.relative_to(REPOSITORY).as_posix()}")
            paper.code(re.sub(r"^-- ?", "", header[0], flags=re.MULTILINE))
    return paper


def _settings(paper: Paper) -> None:
    tree = ast.parse((REPOSITORY / "shared/settings.py").read_text(encoding="utf-8"))
    paper.heading("Settings", 2)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "setting":
            name, default, words = call.args
            paper.paragraph(f"{ast.literal_eval(name)} (default {ast.unparse(default)}): {ast.literal_eval(words)}")


def _sources(pattern: str) -> list[Path]:
    return [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob(pattern))]


def _public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            words = ast.get_docstring(node)
            if isinstance(node, ast.FunctionDef):
                if words:
                    yield f"{owner}{node.name}({ast.unparse(node.args)})", words
            else:
                if words:
                    yield f"class {node.name}", words
                yield from _public(node.body, f"{node.name}.")


if __name__ == "__main__":
    for made in make_pdfs(Path(sys.argv[1])):
        print(made)
