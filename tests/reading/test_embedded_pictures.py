"""Pictures inside Office files and messages are read by OCR, where the text shows them."""

import io
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from openpyxl.drawing.image import Image as SheetImage
from PIL import Image

from shared.documents.media_types import detect_media_type
from testing.reading_samples import open_document, outlook
from tests.odd_files import repacked
from tests.scans import ScannedDocument, draw_text, encode
from tests.security.test_hostile_pictures import png
from workers.cpu.chunking import chunk_pages
from workers.cpu.ocr.embedded import EmbeddedPictures
from workers.cpu.ocr.ocr_pages import merge_pictures
from workers.cpu.ocr.recognizer import OCR_FAULT, OcrResult
from workers.cpu.parsing.parser import Page
from workers.cpu.readers.reader import NO_OCR_TEXT, UNREAD_IMAGES
from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE, open_reader

SENTENCE = "Boilers are inspected in May."
LABEL = encode(draw_text(SENTENCE, width=520, height=100), "PNG")


def letter(*pictures: bytes) -> bytes:
    """A Word file with pictures between two paragraphs."""
    document, target = docx.Document(), io.BytesIO()
    document.add_paragraph("Above the label.")
    for picture in pictures:
        document.add_picture(io.BytesIO(picture))
    document.add_paragraph("Below the label.")
    document.save(target)
    return target.getvalue()


def deck() -> bytes:
    """Slides with the same picture: between two texts, alone, and again with a text."""
    presentation, target = pptx.Presentation(), io.BytesIO()
    for texts in (("Above the label.", "Below the label."), (), ("The same label.",)):
        slide = presentation.slides.add_slide(presentation.slide_layouts[6])
        for number, text in enumerate([*texts[:1], None, *texts[1:]]):
            if text is None:
                slide.shapes.add_picture(io.BytesIO(LABEL), 0, 0)
            else:
                slide.shapes.add_textbox(0, number, 9, 9).text_frame.text = text
    presentation.save(target)
    return target.getvalue()


def workbook() -> bytes:
    book, target = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["Above the label."])
    book.active.add_image(SheetImage(io.BytesIO(LABEL)), "B3")
    book.save(target)
    return target.getvalue()


def open_text() -> bytes:
    picture = (
        "<draw:frame><draw:image xlink:href='Pictures/label.svg'/><draw:image xlink:href='Pictures/label.png'/></draw:frame>"
    )
    body = f"<text:p>Above the label.{picture}</text:p><text:p>Below the label.</text:p>"
    return open_document(body, parts={"Pictures/label.png": LABEL, "Pictures/label.svg": "<svg/>"})


def message() -> bytes:
    """A message whose HTML shows a picture, and that has another as an attachment."""
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "Boilers", "ada@example.com"
    mail.set_content("<p>Above the label.</p><p><img src='cid:label'></p><p>Below the label.</p>", subtype="html")
    mail.add_related(LABEL, "image", "png", cid="<label>")
    mail.make_mixed()
    mail.add_attachment(
        encode(draw_text("See page 4.", height=100), "JPEG"), maintype="image", subtype="jpeg", filename="page/4.jpg"
    )
    return bytes(mail)


def outlook_message() -> bytes:
    attached = {"3707001F": "label.png".encode("utf-16-le"), "37010102": encode(Image.new("1", (520, 100)), "PNG")}
    return outlook({"0037001F": "Boilers".encode("utf-16-le"), "1000001F": "Above the label.".encode("utf-16-le")}, (attached,))


FILES: dict[str, Callable[[], bytes]] = {
    "docx": lambda: letter(LABEL),
    "pptx": deck,
    "xlsx": workbook,
    "odt": open_text,
    "eml": message,
    "msg": outlook_message,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_reader_notes_where_a_picture_is_shown_and_it_can_be_opened_by_its_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"label.{kind}"
    path.write_bytes(FILES[kind]())
    media_type = detect_media_type(path, path.name)
    [name] = READERS_BY_MEDIA_TYPE[media_type]
    content = open_reader(name, str(path), "").read_page(1)
    offset, picture = content.pictures[0]
    assert content.text[:offset].rstrip().endswith("Above the label.")
    assert content.text[offset:].strip() in ("", "Below the label.")
    assert content.fault == ""
    [part] = EmbeddedPictures(str(path), media_type, "", 10**6).named(picture)
    assert part.image.shape == (100, 520, 3)


def signature(picture: bytes) -> bytes:
    """A message whose HTML ends with an inline picture and one that counts readers."""
    mail = EmailMessage()
    mail["Subject"] = "Boilers"
    html = "<p>Regards, Ada</p><img src='cid:logo'><img src='https://example.com/opened' width='1' height='1'>"
    mail.set_content(html, subtype="html")
    mail.add_related(picture, "image", "png", cid="<logo>", filename="image001.png")
    return bytes(mail)


def outlook_signature(picture: bytes) -> bytes:
    def wide(text: str) -> bytes:
        return text.encode("utf-16-le")

    attached = {"3707001F": wide("image001.png"), "3712001F": wide("logo"), "37010102": picture}
    return outlook({"0037001F": wide("Boilers"), "10130102": b"<p>Regards, Ada</p><img src='cid:logo'>"}, (attached,))


@pytest.mark.parametrize(("write", "suffix"), [(signature, "eml"), (outlook_signature, "msg")])
@pytest.mark.parametrize(("size", "pictures"), [((48, 48), 0), ((600, 23), 0), ((49, 24), 1)])
def test_pictures_without_room_for_a_word_are_not_reported(
    tmp_path: Path, write: Callable[[bytes], bytes], suffix: str, size: tuple[int, int], pictures: int
) -> None:
    path = tmp_path / f"letter.{suffix}"
    path.write_bytes(write(encode(Image.new("1", size), "PNG")))
    [name] = READERS_BY_MEDIA_TYPE[detect_media_type(path, path.name)]
    content = open_reader(name, str(path), "").read_page(1)
    assert content.text.rstrip().endswith("Regards, Ada")
    assert (len(content.pictures), content.images, content.fault) == (pictures, pictures > 0, "")


def test_pictures_of_a_message_are_read_where_its_text_shows_them(tmp_path: Path) -> None:
    document = ScannedDocument(tmp_path, message(), images=True)
    assert [problem.text for problem in document.summary().problems] == [UNREAD_IMAGES]
    [page] = document.read()
    assert page.text.split("\n\n", 1)[1].split() == f"Above the label. {SENTENCE} Below the label. See page 4.".split()
    assert [page.text[start:end] for start, end, _ in page.ocr_parts] == [SENTENCE, "See page 4."]
    assert page.confidence is not None
    assert page.confidence > 0.9
    assert document.summary().problems == []


def test_a_picture_on_several_slides_is_read_once_and_a_slide_without_text_always(tmp_path: Path) -> None:
    document = ScannedDocument(tmp_path, deck(), images=True)
    first, second, third = document.read()
    assert first.text == f"Above the label.\n\n{SENTENCE}\n\nBelow the label.\n\n"
    assert (second.text, third.text.strip()) == (SENTENCE, "The same label.")
    assert document.progress == [(0, 2), (1, 2), (2, 2)]
    assert document.summary().problems == []


def test_pictures_on_pages_with_text_are_read_only_when_asked(tmp_path: Path) -> None:
    document = ScannedDocument(tmp_path, letter(LABEL))
    [page] = document.read()
    assert (SENTENCE in page.text, page.confidence, document.progress) == (False, None, [])
    assert [problem.text for problem in document.summary().problems] == [UNREAD_IMAGES]


def test_hostile_pictures_are_reported_and_cost_no_other_text(tmp_path: Path) -> None:
    broken, bomb = LABEL[:200], png(60_000, 60_000)
    names = [f"word/media/image{number}.png" for number in (1, 2, 3)]
    pictures = [encode(draw_text(text), "PNG") for text in ("One.", "Two.")]
    data = letter(*pictures, LABEL)
    document = ScannedDocument(tmp_path, repacked(data, {names[0]: bomb, names[1]: broken}), images=True)
    [page] = document.read()
    assert SENTENCE in page.text
    assert page.text.startswith("Above")
    [problem] = document.summary().problems
    assert f"shows image1.png, which {OCR_FAULT} (Picture image1.png is 60000 by 60000 pixels" in problem.text
    assert f"shows image2.png, which {OCR_FAULT} (" in problem.text


def test_headings_move_with_the_text_and_chunks_have_the_confidence_of_their_picture() -> None:
    text = "One two three.\nSecond\nFour five six.\n"
    page = Page(number=1, text=text, headings=[(15, 1, "Second")], images=True, pictures=[(15, "a"), (len(text), "b")])
    found = {"a": OcrResult(number=1, text="Boilers.", confidence=0.9), "b": OcrResult(number=1, text="Valves.", confidence=0.5)}
    merged = merge_pictures(page, found)
    assert merged.text == "One two three.\n\nBoilers.\n\nSecond\nFour five six.\n\nValves."
    [(start, _, title)] = merged.headings
    assert merged.text[start:].startswith(title)
    chunks = list(chunk_pages([merged], lambda text: len(text.split()), size=4, overlap=0))
    assert [(chunk.text.split()[0], chunk.confidence) for chunk in chunks] == [("One", 0.9), ("Second", None), ("Valves.", 0.5)]


def test_a_picture_that_failed_is_kept_for_a_retry() -> None:
    page = Page(number=1, text="", images=True, pictures=[(0, "a"), (0, "b")])
    fault = f"shows a, which {OCR_FAULT} within 1 s (ENGINEHOUSE_OCR_PAGE_SECONDS)"
    failed = merge_pictures(page, {"a": OcrResult(number=1, fault=fault), "b": OcrResult(number=1)})
    assert (failed.pictures, failed.confidence, failed.fault) == ([(0, "a")], 0.0, fault)
    read = merge_pictures(failed, {"a": OcrResult(number=1, text="Boilers.", confidence=0.9)})
    assert (read.text, read.pictures, read.fault, read.confidence) == ("Boilers.", [], "", 0.9)
    assert merge_pictures(page, {"a": OcrResult(number=1), "b": OcrResult(number=1)}).fault == NO_OCR_TEXT
