"""PDFs: what stands beside the text of a page is read or reported, and a page without real text needs OCR."""

import zlib
from pathlib import Path

import pytest

from shared.documents.media_types import PDF
from shared.errors import DocumentRejected
from workers.cpu.parsing.page_summary import PageSummary, summarize_pages
from workers.cpu.parsing.parser import Limits, Page, read_pages
from workers.cpu.readers.pdf import PdfiumReader
from workers.cpu.readers.reader import NEEDS_OCR

LIMITS = Limits(seconds=60, memory_bytes=2**30, max_pages=100, max_page_characters=100_000)
HELLO = "BT /F1 12 Tf 72 700 Td (Hello from the page.) Tj ET"
STAMP = "BT /F1 12 Tf 72 700 Td (RECEIVED 5 May) Tj ET"
SCAN = "q 612 0 0 792 0 0 cm /I1 Do Q"
LOGO = "q 50 0 0 50 0 0 cm /I1 Do Q"
CURVES = "".join(f"{x} 700 m {x} 712 l {x + 3} 712 l {x + 3} 700 l f\n" for x in range(70, 400, 6))
PLEASE_WAIT = "BT /F1 12 Tf 72 700 Td (Please wait... If this message is not eventually replaced) Tj ET"


def pdf(content: str, *, catalog: str = "", page: str = "", font: str = "", more: tuple[str, ...] = ()) -> bytes:
    """A PDF of one page. ``more`` are its objects from number 7 on."""
    image = zlib.compress(b"\xff" * 3)
    objects: list[str | bytes] = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R {page} "
        f"/Resources << /Font << /F1 5 0 R >> {'/XObject << /I1 6 0 R >>' if '/I1' in content else ''} >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        font or "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /FlateDecode "
        b"/Length %d >>\nstream\n%s\nendstream" % (len(image), image),
        *more,
    ]
    data, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body.encode("latin-1") if isinstance(body, str) else body)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    data += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(data)


def stream(text: str) -> str:
    return f"<< /Length {len(text)} >>\nstream\n{text}\nendstream"


def read(tmp_path: Path, data: bytes) -> tuple[list[Page], PageSummary]:
    path = tmp_path / "original"
    path.write_bytes(data)
    pages: list[Page] = []
    read_pages(path, PDF, LIMITS, lambda page, _: pages.append(page))
    return pages, summarize_pages(pages)


def widget(entries: str) -> str:
    return f"<< /Type /Annot /Subtype /Widget /Rect [100 100 200 120] {entries} >>"


FORM = pdf(
    HELLO,
    catalog="/AcroForm << /Fields [7 0 R 8 0 R 9 0 R 10 0 R 11 0 R 13 0 R] >>",
    page="/Annots [7 0 R 8 0 R 9 0 R 10 0 R 12 0 R 13 0 R]",
    more=(
        widget("/FT /Tx /T (surname) /V (Featherstonehaugh)"),
        widget("/FT /Btn /T (resident) /V /Yes /AS /Yes /AP << /N << /Yes 4 0 R /Off 4 0 R >> >>"),
        widget("/FT /Btn /T (dog) /V /Off /AS /Off /AP << /N << /Yes 4 0 R /Off 4 0 R >> >>"),
        widget("/FT /Ch /Ff 131072 /T (zone) /Opt [(north) (south)] /V (south)"),
        "<< /FT /Tx /T (parent) /V (from the parent field) /Kids [12 0 R] >>",
        widget("/Parent 11 0 R"),
        widget("/FT /Tx /T (empty)"),
    ),
)


def test_what_was_typed_into_a_form_is_read(tmp_path: Path) -> None:
    [page], summary = read(tmp_path, FORM)
    lines = page.text.split("\n")
    assert lines[0] == "Hello from the page."
    assert set(lines[1:]) == {
        "surname: Featherstonehaugh",
        "resident: Yes",
        "zone: south",
        "parent: from the parent field",
    }
    assert summary.problems == []


def test_comments_are_read_and_links_are_not(tmp_path: Path) -> None:
    notes = (
        "<< /Type /Annot /Subtype /Text /Rect [10 10 20 20] /Contents (The price is wrong.) >>",
        "<< /Type /Annot /Subtype /FreeText /Rect [10 10 200 20] /Contents (Written on the page) /DA (/F1 12 Tf) >>",
        "<< /Type /Annot /Subtype /Highlight /Rect [10 10 200 20] /QuadPoints [10 20 200 20 10 10 200 10] /Contents (Check this) >>",
        "<< /Type /Annot /Subtype /Link /Rect [10 10 200 20] /Contents (a link) >>",
    )
    [page], _ = read(tmp_path, pdf(HELLO, page="/Annots [7 0 R 8 0 R 9 0 R 10 0 R]", more=notes))
    assert page.text == "Hello from the page.\nComment: The price is wrong.\nWritten on the page\nComment: Check this"
    [page], _ = read(tmp_path, pdf(HELLO, page="/Annots [7 0 R]", more=notes[3:]))
    assert page.text == "Hello from the page."


def test_comments_on_a_scan_do_not_hide_that_it_needs_ocr(tmp_path: Path) -> None:
    note = "<< /Type /Annot /Subtype /Text /Rect [10 10 20 20] /Contents (Please check.) >>"
    [page], summary = read(tmp_path, pdf(SCAN, page="/Annots [7 0 R]", more=(note,)))
    assert page.text.strip() == "Comment: Please check."
    assert "only comments and form fields" in summary.problems[0].text


def test_files_inside_are_reported(tmp_path: Path) -> None:
    embedded = (
        "<< /Names [(report.txt) 8 0 R] >>",
        "<< /Type /Filespec /F (report.txt) /UF (report.txt) /EF << /F 9 0 R >> >>",
        stream("The bridge is closed.").replace("<<", "<< /Type /EmbeddedFile"),
    )
    catalog = "/Names << /EmbeddedFiles 7 0 R >>"
    _, summary = read(tmp_path, pdf(HELLO, catalog=catalog, more=embedded))
    assert [problem.text for problem in summary.problems] == ["has embedded files that were not read: report.txt"]
    with pytest.raises(DocumentRejected) as rejection:
        read(tmp_path, pdf(SCAN, catalog=catalog, more=embedded))
    assert rejection.value.code == "needs_ocr"


def test_an_xfa_form_is_reported_and_its_values_are_read(tmp_path: Path) -> None:
    data = "<xdp><xfa:datasets xmlns:xfa='http://www.xfa.org/schema/xfa-data/1.0/'><xfa:data>{}</xfa:data></xfa:datasets></xdp>"
    for values, line in (("<form><Name>Magellan</Name></form>", "Name: Magellan"), ("", "Please wait")):
        catalog = "/AcroForm << /Fields [] /XFA 7 0 R >> /NeedsRendering true"
        [page], summary = read(tmp_path, pdf(PLEASE_WAIT, catalog=catalog, more=(stream(data.format(values)),)))
        assert line in page.text
        assert "XFA form" in summary.problems[0].text


TYPE_3 = (
    "<< /Type /Font /Subtype /Type3 /FontBBox [0 0 1000 1000] /FontMatrix [0.001 0 0 0.001 0 0] /CharProcs << /g1 7 0 R >> "
    "/Encoding << /Differences [1 /g1 /g1 /g1 /g1] >> /FirstChar 1 /LastChar 4 /Widths [500 500 500 500] >>"
)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("curves", pdf(CURVES)),
        ("picture", pdf(SCAN)),
        ("stamp over a scan", pdf(SCAN + " " + STAMP)),
        ("stamp below a scan", pdf(STAMP + " " + SCAN)),
        (
            "font without letters",
            pdf("BT /F1 12 Tf 72 700 Td <01020304010203> Tj ET", font=TYPE_3, more=(stream("500 0 d0 0 0 400 700 re f"),)),
        ),
    ],
)
def test_a_page_without_real_text_needs_ocr(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(DocumentRejected) as rejection:
        read(tmp_path, data)
    assert rejection.value.code == "needs_ocr", name


@pytest.mark.parametrize("content", ["", "72 700 m 500 700 l S"])
def test_a_blank_page_is_empty(tmp_path: Path, content: str) -> None:
    with pytest.raises(DocumentRejected) as rejection:
        read(tmp_path, pdf(content))
    assert rejection.value.code == "empty"


def test_text_on_a_picture_or_beside_a_logo_is_text(tmp_path: Path) -> None:
    long = "BT /F1 9 Tf 20 700 Td (" + "A slide with a picture behind its words. " * 4 + ") Tj ET"
    for content in (SCAN + " " + long, LOGO + " " + STAMP):
        assert read(tmp_path, pdf(content))[1].problems == []


def test_a_stamped_page_among_others_keeps_its_stamp_and_is_reported() -> None:
    pages = [Page(number=1, text="Text."), Page(number=2, text="RECEIVED", fault=NEEDS_OCR)]
    assert [(problem.pages, problem.text) for problem in summarize_pages(pages).problems] == [("2", NEEDS_OCR)]


def test_a_line_that_is_drawn_twice_to_look_bold_is_read_once(tmp_path: Path) -> None:
    twice = HELLO + " " + HELLO.replace("72 700", "72.3 700")
    assert read(tmp_path, pdf(twice))[0][0].text.count("Hello") == 1


@pytest.mark.parametrize(("angle", "matrix"), [(0, "1 0 0 1 72 700"), (90, "0 1 -1 0 72 100"), (270, "0 -1 1 0 500 700")])
def test_a_turned_page_keeps_the_order_of_its_lines(tmp_path: Path, angle: int, matrix: str) -> None:
    lines = f"BT /F1 12 Tf {matrix} Tm (one) Tj 0 -20 Td (two) Tj 0 -20 Td (three) Tj ET"
    assert read(tmp_path, pdf(lines, page=f"/Rotate {angle}"))[0][0].text.split() == ["one", "two", "three"]


def test_letters_of_unknown_fonts_are_reported_but_kept_where_they_are_readable(tmp_path: Path) -> None:
    codes = "".join(f"{ord(letter):02x}" for letter in "The boiler is inspected on Mondays and Fridays")
    names = " ".join("/g1" for _ in range(32, 123))
    font = TYPE_3.replace("[1 /g1 /g1 /g1 /g1]", f"[32 {names}]").replace(
        "/FirstChar 1 /LastChar 4", "/FirstChar 32 /LastChar 122"
    )
    font = font.replace("[500 500 500 500]", "[" + "500 " * 91 + "]")
    [page], summary = read(
        tmp_path, pdf(f"BT /F1 12 Tf 72 700 Td <{codes}> Tj ET", font=font, more=(stream("500 0 d0 0 0 400 700 re f"),))
    )
    assert page.text == "The boiler is inspected on Mondays and Fridays"
    assert "do not say which letters" in summary.problems[0].text


def test_values_can_be_read_from_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "original"
    path.write_bytes(FORM)
    with path.open("rb") as source:
        assert "surname: Featherstonehaugh" in PdfiumReader(source, "").read_page(1).text


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [("exam-", "ple text", "example text"), ("part ABC-", "4711 fits", "ABC-4711"), ("Baden-", "Baden spa", "Baden-Baden")],
)
def test_a_hyphen_at_the_end_of_a_line_stays_unless_it_breaks_a_word(
    tmp_path: Path, first: str, second: str, joined: str
) -> None:
    pages, _ = read(tmp_path, pdf(f"BT /F1 12 Tf 72 700 Td ({first}) Tj 0 -14 Td ({second}) Tj ET"))
    assert joined in pages[0].text
