"""Turn Markdown documents into PDFs: headings, paragraphs, lists, tables and code. The same text gives the same bytes."""

import re
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import TableCellFillMode
from fpdf.fonts import FontFace

DATE = datetime(2026, 1, 1, tzinfo=UTC)

# The fonts that every PDF reader has cover Latin-1 only.
_LATIN_1 = str.maketrans(
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
_MARKUP = re.compile(r"\*\*|`|^\s*[-*] (?=\S)|!?\[([^\[\]]*)\]\([^()]*\)")


class PdfDocument(FPDF):
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

    def add_heading(self, text: str, level: int = 1) -> None:
        self.ln(2)
        self._write_block(text, "Helvetica", "B", {1: 18, 2: 14}.get(level, 12))
        self.ln(1)

    def add_paragraph(self, text: str) -> None:
        self._write_block(text, "Helvetica", "", 11)
        self.ln(2)

    def add_code(self, text: str) -> None:
        self._write_block(text, "Courier", "", 9)
        self.ln(2)

    def add_table(self, rows: list[list[str]]) -> None:
        """The first row holds the headings."""
        self.set_font("Helvetica", size=10)
        heading = FontFace(emphasis="BOLD")
        with self.table(line_height=6, headings_style=heading, cell_fill_mode=TableCellFillMode.NONE, align="LEFT") as table:
            for row in rows:
                table.row([_latin_1(cell) for cell in row])
        self.ln(4)

    def _write_block(self, text: str, family: str, style: str, size: int) -> None:
        self.set_font(family, style, size)
        self.multi_cell(0, size * 0.5, _latin_1(text), new_x="LMARGIN", new_y="NEXT", align="L")


def write_pdfs(sources: list[Path], folder: Path) -> list[Path]:
    """Write one PDF per Markdown file into ``folder``, which is created if missing; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = []
    for source in sources:
        target = folder / f"{source.stem.lower()}.pdf"
        pdf_from_markdown(source.read_text(encoding="utf-8"), source.stem).output(str(target))
        targets.append(target)
    return targets


def pdf_from_markdown(text: str, title: str) -> PdfDocument:
    """The text of a Markdown document; links, emphasis and images lose their markup."""
    document = PdfDocument(title)
    for number, block in enumerate(re.split(r"^```.*$", text, flags=re.MULTILINE)):
        if number % 2:
            document.add_code(block.strip("\n"))
            continue
        for piece in re.split(r"\n\s*\n", block):
            heading = re.match(r"(#+) +(.*)", piece.strip())
            if heading:
                document.add_heading(_MARKUP.sub(r"\1", heading[2]), len(heading[1]))
                piece = piece.strip()[heading.end() :]
            _add_text(document, piece)
    return document


def _add_text(document: PdfDocument, piece: str) -> None:
    lines = [_MARKUP.sub(r"\1", line).strip() for line in piece.strip().splitlines()]
    if not any(lines):
        return
    if len(lines) > 2 and all(line.startswith("|") and line.endswith("|") for line in lines):
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if not re.fullmatch(r"[|\s:-]+", line)]
        if len({len(row) for row in rows}) == 1:
            document.add_table(rows)
            return
    is_list = re.search(r"^[ \t]*([-*|]|\d+\.) ?", piece, re.MULTILINE)
    document.add_paragraph(("\n" if is_list else " ").join(lines))


def _latin_1(text: str) -> str:
    return text.translate(_LATIN_1).encode("latin-1", "replace").decode("latin-1")
