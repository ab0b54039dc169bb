"""Parsing of hostile files: whatever a file does to the child process, the parent reports a status and the limit."""

import io
import os
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from fpdf import FPDF
from PIL import Image
from pypdf import PdfWriter

from shared.documents.media_types import PDF, TEXT, MediaType
from shared.errors import DocumentRejected
from testing.fault_rig.processes import find_descendant
from workers.cpu.parsing.page_summary import format_ranges, summarize_pages
from workers.cpu.parsing.parser import Limits, Page, read_pages

LIMITS = Limits(seconds=20, memory_bytes=1 << 30, max_pages=100, max_page_characters=200_000)


def pdf(*pages: str | None) -> bytes:
    """A page for each text; None is a page that holds only an image."""
    paper = FPDF()
    for text in pages:
        paper.add_page()
        paper.set_font("Helvetica", size=12)
        if text is None:
            paper.image(Image.new("RGB", (20, 20), "red"), x=20, y=20, w=100)
        else:
            paper.multi_cell(0, 8, text)
    return bytes(paper.output())


def stream(content: bytes, packed: bytes | None = None) -> bytes:
    """A PDF of one page whose content stream is ``content``, or unpacks to it."""
    filters = b"" if packed is None else b"/Filter /FlateDecode "
    body = content if packed is None else packed
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< %s/Length %d >>\nstream\n%s\nendstream" % (filters, len(body), body),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = b"%PDF-1.4\n"
    places = []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"xref\n0 6\n0000000000 65535 f \n%strailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(out),
    )


def read(tmp_path: Path, data: bytes, kind: MediaType = PDF, limits: Limits = LIMITS) -> list[Page]:
    path = tmp_path / "file"
    path.write_bytes(data)
    pages: list[Page] = []
    read_pages(path, kind, limits, lambda page, _total: pages.append(page))
    summarize_pages(pages)
    return pages


def rejected(tmp_path: Path, data: bytes, kind: MediaType = PDF, limits: Limits = LIMITS) -> tuple[str, str]:
    with pytest.raises(DocumentRejected) as caught:
        read(tmp_path, data, kind, limits)
    return caught.value.code, caught.value.message


def test_pages_are_read_in_order_with_normalized_lines(tmp_path: Path) -> None:
    pages = read(tmp_path, pdf("First line.\nSecond line.", "The next page."))
    assert [(page.number, page.text.strip()) for page in pages] == [(1, "First line.\nSecond line."), (2, "The next page.")]


def test_a_word_hyphenated_at_a_line_end_is_joined(tmp_path: Path) -> None:
    [page] = read(tmp_path, stream(b"BT /F1 12 Tf 20 700 Td (This is an exam-) Tj 0 -14 Td (ple of a break.) Tj ET"))
    assert page.text.strip() == "This is an example of a break."


def test_scanned_pages_of_a_pdf_are_marked(tmp_path: Path) -> None:
    pages = read(tmp_path, pdf(None, "Text.", None))
    assert [(page.number, page.images) for page in pages] == [(1, True), (2, False), (3, True)]


def test_a_document_of_images_needs_ocr(tmp_path: Path) -> None:
    code, reason = rejected(tmp_path, pdf(None, None, None))
    assert code == "needs_ocr"
    assert "1-3 of 3" in reason


def test_blank_pages_are_empty(tmp_path: Path) -> None:
    assert rejected(tmp_path, pdf("", ""))[0] == "empty"


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_an_encrypted_pdf_is_rejected_as_encrypted(tmp_path: Path, algorithm: str) -> None:
    writer, target = PdfWriter(clone_from=io.BytesIO(pdf("Secret."))), io.BytesIO()
    writer.encrypt("secret", algorithm=algorithm)
    writer.write(target)
    assert rejected(tmp_path, target.getvalue())[0] == "encrypted"


def test_a_pdf_with_only_an_owner_password_is_read(tmp_path: Path) -> None:
    writer, target = PdfWriter(clone_from=io.BytesIO(pdf("Readable."))), io.BytesIO()
    writer.encrypt("", "owner", algorithm="AES-256")
    writer.write(target)
    assert read(tmp_path, target.getvalue())[0].text.strip() == "Readable."


def test_a_truncated_pdf_names_both_readers(tmp_path: Path) -> None:
    code, reason = rejected(tmp_path, pdf("Text.")[:300])
    assert code == "failed"
    assert "pypdfium2" in reason
    assert "pypdf:" in reason


def test_a_pdf_bomb_is_stopped_at_the_memory_limit(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    block = b"BT /F1 12 Tf (x) Tj ET\n" * 50_000
    packed = b"".join(packer.compress(block) for _ in range(500)) + packer.flush()
    code, reason = rejected(tmp_path, stream(b"", packed), limits=replace(LIMITS, memory_bytes=256 << 20))
    assert code in ("failed", "too_large")
    assert "256 MiB" in reason


def test_a_slow_file_is_stopped_at_the_timeout(tmp_path: Path) -> None:
    code, reason = rejected(
        tmp_path, stream(b"BT /F1 1 Tf 1 0 0 1 9 9 Tm (x) Tj ET\n" * 400_000), limits=replace(LIMITS, seconds=0.2)
    )
    assert code == "too_large"
    assert "0.2 s" in reason


def test_too_many_pages_and_too_long_pages_are_rejected(tmp_path: Path) -> None:
    code, reason = rejected(tmp_path, pdf("a", "b", "c"), limits=replace(LIMITS, max_pages=2))
    assert code == "too_large"
    assert "3 pages" in reason
    code, reason = rejected(tmp_path, b"x" * 5000, TEXT, replace(LIMITS, max_page_characters=1000))
    assert code == "too_large"
    assert "1000 characters" in reason


def test_text_is_split_at_form_feeds_and_lines(tmp_path: Path) -> None:
    assert [page.text for page in read(tmp_path, b"one\r\ntwo\fthree", TEXT)] == ["one\ntwo", "three"]
    long = read(tmp_path, b"0123456789\n" * 20_000, TEXT)
    assert len(long) > 1
    assert "".join(page.text for page in long) == "0123456789\n" * 20_000


def test_text_with_a_late_non_ascii_byte_is_decoded(tmp_path: Path) -> None:
    text = "plain words in a row. " * 5000 + "Die Größe der Straße übertrifft die Höhe der Häuser. " * 20
    assert "".join(page.text for page in read(tmp_path, text.encode("latin-1"), TEXT)) == text


def test_characters_that_no_index_accepts_are_removed(tmp_path: Path) -> None:
    assert read(tmp_path, "a\u200bb\x1bc\ufffed".encode(), TEXT)[0].text == "a\u200bbc-d"


def test_a_callback_that_raises_kills_the_child(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pdf("one", "two"))

    def on_page(page: Page, total: int) -> None:
        raise KeyError(page.number)

    with pytest.raises(KeyError) as held:
        read_pages(path, PDF, LIMITS, on_page)
    assert held.value.args == (1,)
    assert find_descendant(os.getpid(), "parse_child") is None


def test_page_numbers_are_formatted_as_ranges() -> None:
    assert format_ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
