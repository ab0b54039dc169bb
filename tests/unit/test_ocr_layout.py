"""OCR: the order of recognized lines, the pages that need it, what is merged into them, and its settings."""

from dataclasses import replace

import pytest

from shared.errors import DocumentRejected, SettingsError
from shared.settings_sources import from_environment
from workers.cpu.chunking import chunk_pages
from workers.cpu.ocr.layout import Line, compose_text
from workers.cpu.ocr.ocr_pages import merge, needs_ocr
from workers.cpu.ocr.recognizer import OCR_FAULT, OcrResult
from workers.cpu.parsing.page_summary import summarize_pages
from workers.cpu.parsing.parser import Page
from workers.cpu.readers.reader import NEEDS_OCR, NO_OCR_TEXT, ONLY_NOTES

SCAN = Page(number=1, text="", images=True)
FOUND = OcrResult(number=1, text="Boilers.", confidence=0.9)


def line(text: str, left: float, top: float, width: float = 400, height: float = 30, confidence: float = 1.0) -> Line:
    return Line(text, confidence, left, top, left + width, top + height)


def column(name: str, left: float, top: float, count: int = 5) -> list[Line]:
    return [line(f"{name}{number}", left, top + number * 44) for number in range(count)]


def words(lines: list[Line]) -> list[str]:
    return compose_text(lines).text.split()


def test_columns_are_read_one_after_the_other() -> None:
    lines = [*column("right", 500, 100), *column("left", 50, 100)]
    assert words(lines[::-1]) == [f"{side}{number}" for side in ("left", "right") for number in range(5)]


def test_titles_and_footers_across_columns_stay_above_and_below() -> None:
    lines = [line("footer", 50, 400, 850), *column("b", 500, 100), line("title", 50, 20, 850), *column("a", 50, 100)]
    assert words(lines) == ["title", *(f"{side}{number}" for side in "ab" for number in range(5)), "footer"]


def test_three_columns() -> None:
    lines = [*column("c", 950, 100), *column("a", 50, 100), *column("b", 500, 100)]
    assert words(lines) == [f"{side}{number}" for side in "abc" for number in range(5)]


def test_a_table_is_read_by_rows() -> None:
    cells = [line(f"{row}{column}", 50 + column * 200, 100 + row * 44, width=80) for column in range(3) for row in range(4)]
    assert compose_text(cells).text == "00 01 02\n10 11 12\n20 21 22\n30 31 32"


def test_a_wider_gap_parts_paragraphs_and_broken_words_are_joined() -> None:
    lines = [
        line("The boil-", 50, 100),
        line("er is hot.", 50, 144),
        line("ABC-", 50, 188),
        line("Weber", 50, 232),
        line("New.", 50, 340),
    ]
    assert compose_text(lines).text == "The boiler is hot.\nABC-\nWeber\n\nNew."


def test_the_confidence_is_the_mean_of_the_lines() -> None:
    assert compose_text([line("a", 0, 0, confidence=0.9), line("b", 0, 50, confidence=0.8)]).confidence == 0.85
    assert compose_text([]).text == ""


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (SCAN, True),
        (Page(number=1, text="Text.", images=True), False),
        (Page(number=1, text=""), False),
        (Page(number=1, text="PAID", fault=f"{NEEDS_OCR}; has an attached file that was not read"), True),
        (Page(number=1, text="Comment: why?", images=True, fault=ONLY_NOTES), True),
        (replace(SCAN, confidence=0.0), False),
    ],
)
def test_which_pages_need_ocr(page: Page, expected: bool) -> None:
    assert needs_ocr(page) is expected


def test_what_ocr_found_replaces_stamps_and_precedes_nothing_else() -> None:
    assert merge(SCAN, FOUND) == Page(number=1, text="Boilers.", confidence=0.9)
    stamped = merge(Page(number=1, text="PAID", fault=f"{NEEDS_OCR}; has macros"), FOUND)
    assert (stamped.text, stamped.fault, stamped.ocr_start) == ("Boilers.", "has macros", 0)
    noted = merge(Page(number=1, text="Comment: why?", images=True, fault=ONLY_NOTES), FOUND)
    assert (noted.text, noted.fault, noted.text[noted.ocr_start :]) == ("Comment: why?\n\nBoilers.", "", "Boilers.")
    assert merge(SCAN, OcrResult(number=1)).fault == NO_OCR_TEXT


def test_a_page_with_pictures_keeps_its_own_text_and_its_chunks_tell_both_apart() -> None:
    page = merge(Page(number=1, text="One two three.\n"), FOUND)
    assert page.text == "One two three.\n\nBoilers."
    chunks = list(chunk_pages([page], lambda text: len(text.split()), size=3, overlap=0))
    assert [(chunk.text.strip(), chunk.confidence) for chunk in chunks] == [("One two three.", None), ("Boilers.", 0.9)]
    assert merge(Page(number=1, text="Text."), OcrResult(number=1)).fault == ""


def test_the_end_of_a_document_without_text_says_what_ocr_did() -> None:
    for fault, code, reason in (
        ("", "empty", "OCR found no text"),
        (f"{OCR_FAULT} within 1 s (ENGINEHOUSE_OCR_PAGE_SECONDS)", "failed", "1 of them could not be read by OCR within 1 s"),
    ):
        with pytest.raises(DocumentRejected) as rejected:
            summarize_pages([merge(SCAN, OcrResult(number=1, fault=fault))])
        assert (rejected.value.code, reason in rejected.value.message) == (code, True), rejected.value.message
    summary = summarize_pages([merge(SCAN, FOUND), merge(replace(SCAN, number=2), OcrResult(number=2))])
    assert [(problem.pages, problem.text) for problem in summary.problems] == [("2", NO_OCR_TEXT)]


def test_languages_are_checked_when_the_settings_are_read() -> None:
    with pytest.raises(SettingsError, match="rapidocr cannot read rus; set ENGINEHOUSE_OCR_ENGINE=tesseract"):
        from_environment({"ENGINEHOUSE_OCR_LANGUAGES": "deu,rus"})
    with pytest.raises(SettingsError, match="is not a language"):
        from_environment({"ENGINEHOUSE_OCR_LANGUAGES": "../etc", "ENGINEHOUSE_OCR_ENGINE": "tesseract"})
    russian = from_environment({"ENGINEHOUSE_OCR_LANGUAGES": " deu , rus ", "ENGINEHOUSE_OCR_ENGINE": "tesseract"})
    assert russian.ocr_language_list == ["deu", "rus"]
