"""Pictures of pages, and where their text is: every box covers exactly the words that it claims."""

import io
from pathlib import Path

import pytest
from fpdf import FPDF
from PIL import Image, ImageChops
from pypdf import PdfWriter

from cli.local.pdf_writer import write_pdfs
from shared.documents.media_types import PDF
from shared.documents.page_boxes import Line, join_lines
from shared.documents.page_drawings import read_ocr_lines
from shared.errors import JobFailure
from testing.repository import REPOSITORY
from tests.odd_files import locked_pdf, many_pages, raw_pdf
from tests.scans import ScannedDocument, draw_text, encode
from workers.cpu.ocr.layout import Line as OcrLine
from workers.cpu.ocr.layout import find_lines
from workers.cpu.pages.draw_child import MARK, MAX_PIXELS
from workers.cpu.pages.drawing import DrawnPage, PageRequest, draw_page
from workers.cpu.pages.positions import add_line_boxes
from workers.cpu.parsing.parser import Limits, read_pages
from workers.cpu.sandbox.child_process import ChildProcesses

MEMORY = 1024 * 2**20
LIMITS = Limits(seconds=60, memory_bytes=MEMORY, max_pages=100, max_page_characters=1_000_000)


def read_text(path: Path, page: int = 1) -> str:
    """The text of a page as a document has it."""
    texts: dict[int, str] = {}
    read_pages(path, PDF, LIMITS, lambda found, total: texts.__setitem__(found.number, found.text), first=page, last=page)
    return texts[page]


def draw(path: Path, text: str, *, page: int = 1, width: int = 1000, start: int = 0, end: int = 0) -> DrawnPage:
    request = PageRequest(page=page, text=text, width=width, start=start, end=end)
    return draw_page(path, request, memory_bytes=MEMORY, children=ChildProcesses())


def lines_of(drawn: DrawnPage, text: str, start: int, end: int) -> list[Line]:
    return join_lines(drawn.boxes, text, start, end, aspect=drawn.width / drawn.height)


def picture_of(drawn: DrawnPage) -> Image.Image:
    return Image.open(io.BytesIO(drawn.picture)).convert("RGB")


def dark_box(image: Image.Image) -> tuple[int, int, int, int]:
    """The box around everything dark in a picture, in millionths of its size."""
    box = image.convert("L").point(lambda value: 255 if value < 128 else 0).getbbox()
    assert box is not None, "the picture is empty"
    width, height = image.size
    return (
        box[0] * 1_000_000 // width,
        box[1] * 1_000_000 // height,
        box[2] * 1_000_000 // width,
        box[3] * 1_000_000 // height,
    )


def assert_box_covers_ink(line: Line, image: Image.Image) -> None:
    """The ink of a picture, which has nothing but one line, is in the box of that line, and the box is not much larger."""
    left, top, right, bottom = dark_box(image)
    assert abs(line.left - left) < 8_000
    assert abs(line.right - right) < 8_000
    assert line.top - 4_000 <= top
    assert bottom <= line.bottom + 4_000
    assert line.bottom - line.top < 3 * (bottom - top)


def paper(text: str, **place: float) -> FPDF:
    """A page with one line of text."""
    page = FPDF()
    page.add_page()
    page.set_font("Helvetica", size=16)
    page.text(place.get("x", 30), place.get("y", 60), text)
    return page


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_box_covers_the_ink_of_its_line(tmp_path: Path) -> None:
    path = saved(tmp_path / "line.pdf", bytes(paper("Boats sail at noon.").output()))
    text = read_text(path)
    drawn = draw(path, text)
    [line] = lines_of(drawn, text, 0, len(text))
    assert text[line.start : line.end] == "Boats sail at noon."
    assert_box_covers_ink(line, picture_of(drawn))


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_boxes_of_rotated_and_cropped_pages_are_where_the_page_shows_the_text(tmp_path: Path, angle: int) -> None:
    writer = PdfWriter(clone_from=io.BytesIO(bytes(paper("Boats sail at noon.").output())))
    writer.pages[0].rotate(angle)
    writer.pages[0].cropbox.lower_left = (40, 300)
    writer.pages[0].cropbox.upper_right = (500, 800)
    target = io.BytesIO()
    writer.write(target)
    path = saved(tmp_path / "turned.pdf", target.getvalue())
    text = read_text(path)
    drawn = draw(path, text)
    expected = (500, 460) if angle in (90, 270) else (460, 500)
    assert (round(drawn.width), round(drawn.height)) == expected
    left, top, right, bottom = dark_box(picture_of(drawn))
    places = [box[1:] for box in drawn.boxes]
    assert len(places) == len("Boatssailatnoon.")
    assert min(place[0] for place in places) - 12_000 <= left
    assert min(place[1] for place in places) - 12_000 <= top
    assert right <= max(place[2] for place in places) + 12_000
    assert bottom <= max(place[3] for place in places) + 12_000


def test_two_columns_have_boxes_of_their_own(tmp_path: Path) -> None:
    page = paper("Left one.", x=20, y=50)
    page.text(20, 60, "Left two.")
    page.text(120, 50, "Right one.")
    page.text(120, 60, "Right two.")
    path = saved(tmp_path / "columns.pdf", bytes(page.output()))
    text = read_text(path)
    drawn = draw(path, text)
    lines = lines_of(drawn, text, 0, len(text))
    assert [text[line.start : line.end] for line in lines] == ["Left one.", "Left two.", "Right one.", "Right two."]
    assert all((line.right < 500_000) == text[line.start :].startswith("Left") for line in lines)


def test_ligatures_and_broken_words_keep_their_places(tmp_path: Path) -> None:
    # 0xAD is a soft hyphen in this font's encoding: pdfium reports such line ends as broken words.
    content = b"BT /F1 20 Tf 50 700 Td (All af-) Tj 0 -30 Td (fairs of ABC-) Tj 0 -30 Td (4711 end.) Tj ET"
    path = saved(tmp_path / "broken.pdf", raw_pdf(content))
    text = read_text(path)
    assert "affairs" in text
    assert "ABC-4711" in text
    drawn = draw(path, text)
    start = text.index("affairs")
    lines = lines_of(drawn, text, start, start + len("affairs"))
    assert [text[line.start : line.end] for line in lines] == ["af", "fairs"], "one word on two lines"
    assert lines[0].bottom <= lines[1].top + 5_000
    [line] = lines_of(drawn, text, text.index("end."), len(text))
    marked = draw(path, text, start=line.start, end=line.end)
    assert_marks_only(drawn, marked, [line])


def assert_marks_only(plain: DrawnPage, marked: DrawnPage, lines: list[Line]) -> None:
    """The marked picture differs from the plain one in these lines, which are on the colour of a mark, and nowhere else."""
    changed = ImageChops.difference(picture_of(plain), picture_of(marked)).convert("L").point(lambda value: 255 if value else 0)
    width, height = changed.size
    box = changed.getbbox()
    assert box is not None
    assert abs(box[0] - min(line.left for line in lines) * width / 1_000_000) <= 2
    assert abs(box[1] - min(line.top for line in lines) * height / 1_000_000) <= 2
    assert abs(box[2] - max(line.right for line in lines) * width / 1_000_000) <= 2
    assert abs(box[3] - max(line.bottom for line in lines) * height / 1_000_000) <= 2
    inside = picture_of(marked).crop(box)
    colours = {colour for _, colour in inside.getcolors(1_000_000) or []}
    assert MARK in colours, "paper that is marked"
    assert any(sum(colour) < 150 for colour in colours), "letters that are as dark as they were"


def test_a_range_marks_its_sentence_on_every_sample(tmp_path: Path) -> None:
    for path in write_pdfs(sorted((REPOSITORY / "examples" / "documents").glob("*.md"))[:2], tmp_path):
        text = read_text(path)
        words = len(text.split())
        assert words > 20
        start = text.index(". ") + 2 if ". " in text else 0
        end = text.find(".", start + 10) + 1 or len(text)
        plain, marked = draw(path, text), draw(path, text, start=start, end=end)
        boxed = {box[0] for box in plain.boxes}
        without = "".join(character for place, character in enumerate(text) if place not in boxed)
        assert set(without.split()) <= {"|", "---"}, "each visible character has a box, but not the lines of tables"
        lines = lines_of(plain, text, start, end)
        assert " ".join(text[line.start : line.end] for line in lines).split() == text[start:end].split()
        assert_marks_only(plain, marked, lines)


def test_text_from_elsewhere_has_no_box(tmp_path: Path) -> None:
    path = saved(tmp_path / "line.pdf", bytes(paper("Boats sail at noon.").output()))
    assert draw(path, "Trains leave in the evening, after eight.", width=0).boxes == []
    redacted = draw(path, "Boats      at noon. \nComment: not on the page", width=0)
    assert "".join("Boats      at noon. "[box[0]] for box in redacted.boxes) == "Boatsatnoon."
    assert draw(path, "", width=0).picture == b""


def test_a_form_is_drawn_with_its_values_and_a_long_page_is_drawn_smaller(tmp_path: Path) -> None:
    path = saved(tmp_path / "tall.pdf", raw_pdf(b"BT /F1 20 Tf 10 19000 Td (High up.) Tj ET", box="0 0 200 20000"))
    picture = picture_of(draw(path, read_text(path), width=2000))
    assert picture.width * picture.height <= MAX_PIXELS * 1.01
    assert round(picture.height / picture.width) == 100


@pytest.mark.parametrize(
    ("content", "page", "code"),
    [
        (locked_pdf("sesame"), 1, "encrypted"),
        (b"%PDF-1.7\nnothing more", 1, "page_unreadable"),
        (bytes(paper("One page.").output()), 2, "page_unreadable"),
        (raw_pdf(b"q", box="0 0 0 0"), 1, ""),
    ],
    ids=["locked", "broken", "too-far", "no-size"],
)
def test_a_page_that_cannot_be_drawn_says_why(tmp_path: Path, content: bytes, page: int, code: str) -> None:
    path = saved(tmp_path / "odd.pdf", content)
    if not code:  # pdfium takes another size for such a page
        assert draw(path, "", page=page).width > 0
        return
    with pytest.raises(JobFailure) as failure:
        draw(path, "", page=page)
    assert failure.value.code == code
    assert str(tmp_path) not in failure.value.message


def test_a_later_page_is_drawn(tmp_path: Path) -> None:
    path = saved(tmp_path / "pages.pdf", many_pages("One.", "Two.", "Three."))
    drawn = draw(path, "Three.", page=3, width=0)
    assert [box[0] for box in drawn.boxes] == list(range(6))


def test_a_ligature_has_the_box_of_its_letters(tmp_path: Path) -> None:
    # In the standard encoding, these are the glyphs fi and fl.
    path = saved(tmp_path / "ligatures.pdf", raw_pdf(rb"BT /F1 40 Tf 50 700 Td (\256ve waf\257es) Tj ET"))
    text = read_text(path)
    drawn = draw(path, text)
    [line] = lines_of(drawn, text, 0, len(text))
    assert len(drawn.boxes) == sum(not character.isspace() for character in text)
    assert_box_covers_ink(line, picture_of(drawn))


@pytest.mark.parametrize("turn", [0, 90])
def test_lines_of_a_scan_are_marked_where_they_are(tmp_path: Path, turn: int) -> None:
    words = "Close the main valve first.", "Then drain the boiler."
    scan = draw_text(*words, width=620, height=400).rotate(turn, expand=True)
    document = ScannedDocument(tmp_path, encode(scan, "PDF", resolution=150))
    [page] = document.read()
    assert page.text == "\n".join(words)
    lines = read_ocr_lines(document.files, document.id, 1)
    request = PageRequest(page=1, text=page.text, width=800, start=0, end=len(words[0]), lines=lines)
    drawn = draw_page(document.original, request, memory_bytes=MEMORY, children=ChildProcesses())
    [first] = lines_of(drawn, page.text, 0, len(words[0]))
    [second] = lines_of(drawn, page.text, len(words[0]) + 1, len(page.text))
    assert (second.left - first.left if turn else second.top - first.top) > 50_000, (
        "below the first one, as the picture was turned"
    )
    plain = PageRequest(page=1, text=page.text, width=800)
    unmarked = picture_of(draw_page(document.original, plain, memory_bytes=MEMORY, children=ChildProcesses()))
    changed = (
        ImageChops.difference(picture_of(drawn), unmarked).convert("L").point(lambda value: 255 if value > 20 else 0).getbbox()
    )
    place = pixels(first, unmarked)
    assert changed is not None
    assert all(abs(is_changed - edge) <= 2 for is_changed, edge in zip(changed, place, strict=True)), (
        "the line is marked, and no more"
    )
    ink = ImageChops.invert(unmarked.convert("L"))
    for line in (first, second):
        ink.paste(0, pixels(line, ink))
    assert ink.point(lambda value: 255 if value > 128 else 0).getbbox() is None, "all ink is inside the boxes"


def pixels(line: Line, picture: Image.Image) -> tuple[int, int, int, int]:
    across, down = picture.width / 1_000_000, picture.height / 1_000_000
    return int(line.left * across), int(line.top * down), -int(-line.right * across), -int(-line.bottom * down)


def test_a_part_of_a_line_of_a_scan_is_marked_in_proportion() -> None:
    boxes = add_line_boxes([], [[2, 12, 100_000, 200_000, 600_000, 240_000]], 12, aspect=0.7)
    assert boxes[0] == (2, (100_000, 200_000, 150_000, 240_000))
    assert boxes[-1] == (11, (550_000, 200_000, 600_000, 240_000))
    upright = add_line_boxes([(0, (1, 2, 3, 4))], [[0, 3, 100_000, 0, 140_000, 900_000]], 3, aspect=0.7)
    assert upright == [(0, (1, 2, 3, 4)), *((offset, (100_000, 0, 140_000, 900_000)) for offset in (1, 2))]


def test_lines_are_found_in_the_text_that_was_composed_of_them() -> None:
    lines = [OcrLine(text, 1.0, 0, 0, 1, 1) for text in ("The boil-", "er is hot.", "lost", "Drain it.")]
    text = "The boiler is hot.\n\nDrain it."
    assert [(text[start:end], line.text) for start, end, line in find_lines(text, lines)] == [
        ("The boil", "The boil-"),
        ("er is hot.", "er is hot."),
        ("Drain it.", "Drain it."),
    ]
