"""PDFs for tests: the documents of the demonstration, and last a long one."""

from pathlib import Path

from cli.local.pdf_writer import write_pdfs
from testing.repository import REPOSITORY
from testing.source_reference import source_reference


def sample_pdfs(folder: Path) -> list[Path]:
    pdfs = write_pdfs(sorted((REPOSITORY / "examples" / "documents").glob("*.md")), folder)
    long = folder / "source-reference.pdf"
    source_reference().output(str(long))
    return [*pdfs, long]
