"""Positions of characters on a page of a PDF, for the text that was stored when the document was read.

pdfium gives a box for each of its characters. ``PdfiumReader`` and ``clean_text`` remove and replace some of them; ``track_text`` makes
the same changes and keeps count of where each character comes from. Words that differ from the stored text get no box: they come from
another reader, from a comment beside the page, or were deleted since.
"""

import ctypes
import re
from dataclasses import dataclass
from typing import Any

from shared.documents.page_boxes import SCALE
from workers.cpu.readers.pdf import BREAKING_HYPHEN, is_kept_hyphen
from workers.cpu.readers.text_builder import CONTROLS

MAX_CHARACTERS = 200_000
"""Pages with more characters get no boxes, which would take minutes."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in units of ``SCALE``, from the top left corner of the page as it is shown."""

_HYPHEN = "\ufffe"
_MIN_MATCHING_SHARE = 0.5
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class TrackedText:
    """A text, and for each of its characters the number of pdfium's character that it comes from."""

    text: str
    sources: list[int]


def read_characters(raw: Any, text_page: Any) -> TrackedText:
    """The characters of a page as pdfium's own text has them."""
    characters, sources = [], []
    for index in range(min(raw.FPDFText_CountChars(text_page), MAX_CHARACTERS + 1)):
        code = raw.FPDFText_GetUnicode(text_page, index)
        if not code:  # the font does not say which letter it is
            continue
        characters.append(_HYPHEN if code == 2 and raw.FPDFText_IsHyphen(text_page, index) == 1 else chr(code))
        sources.append(index)
    return TrackedText("".join(characters), sources)


def track_text(original: TrackedText) -> TrackedText:
    """What ``PdfiumReader`` and ``clean_text`` make of the characters of a page."""
    joined = _join_broken_words(original)
    characters: list[str] = []
    sources: list[int] = []
    text = joined.text
    for place, character in enumerate(text):
        if character == "\r":
            if text[place + 1 : place + 2] == "\n":
                continue
            character = "\n"
        else:
            replaced = CONTROLS.get(ord(character), character)
            if replaced is None:
                continue
            character = replaced
        characters.append(character)
        sources.append(joined.sources[place])
    return TrackedText("".join(characters), sources)


def match_characters(tracked: TrackedText, stored: str) -> list[int]:
    """For each character of the stored text the number of pdfium's character, or -1 if it is not known for sure."""
    sources = [-1] * len(stored)
    words = matching = 0
    for word in _WORD.finditer(stored):
        words += 1
        start, end = word.span()
        if tracked.text[start:end] == word[0]:
            sources[start:end] = tracked.sources[start:end]
            matching += 1
    # With another text, some short words are at the same place by chance. Comments follow a text, and what was deleted is blank.
    common = min(words, len(tracked.text.split()))
    return sources if matching >= _MIN_MATCHING_SHARE * common else [-1] * len(stored)


def read_boxes(raw: Any, page: Any, text_page: Any, stored: str) -> list[tuple[int, Box]]:
    """Offset in the stored text and box of each of its visible characters whose place is known, in the order of the text."""
    original = read_characters(raw, text_page)
    if len(original.text) > MAX_CHARACTERS:
        return []
    boxes = []
    for offset, index in enumerate(match_characters(track_text(original), stored)):
        if index >= 0 and (box := _box(raw, page, text_page, index)) is not None:
            boxes.append((offset, box))
    return boxes


def _join_broken_words(original: TrackedText) -> TrackedText:
    characters: list[str] = []
    sources: list[int] = []

    def copy(start: int, end: int) -> None:
        for place in range(start, end):
            if original.text[place] != _HYPHEN:
                characters.append(original.text[place])
                sources.append(original.sources[place])

    done = 0
    for broken in BREAKING_HYPHEN.finditer(original.text):
        copy(done, broken.start())
        if is_kept_hyphen(broken):
            characters.append("-")
            sources.append(original.sources[broken.start()])
        done = broken.end()
    copy(done, len(original.text))
    return TrackedText("".join(characters), sources)


def _box(raw: Any, page: Any, text_page: Any, index: int) -> Box | None:
    """The box of a character: as high as its line, so that the boxes of a line are even. None if it is outside of the page."""
    rectangle = raw.FS_RECTF()
    if not raw.FPDFText_GetLooseCharBox(text_page, index, rectangle):
        return None
    corners = [_to_page(raw, page, x, y) for x in (rectangle.left, rectangle.right) for y in (rectangle.top, rectangle.bottom)]
    across, down = [x for x, _ in corners], [y for _, y in corners]
    left, top, right, bottom = (min(max(each, 0), SCALE) for each in (min(across), min(down), max(across), max(down)))
    return (left, top, right, bottom) if right > left and bottom > top else None


def _to_page(raw: Any, page: Any, x: float, y: float) -> tuple[int, int]:
    """A point of the PDF on the page as it is shown, rotated and cropped."""
    across, down = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(page, 0, 0, SCALE, SCALE, 0, x, y, across, down)
    return across.value, down.value
