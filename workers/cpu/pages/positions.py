"""Positions of characters on a page of a PDF, for the text that was stored when the document was read.

pdfium gives a box for each of its characters. ``PdfiumReader`` and ``clean_text`` remove and replace some of them; ``track_text`` makes
the same changes and keeps count of where each character comes from. Words that differ from the stored text get no box: they come from
another reader, from a comment beside the page, or were deleted since.
"""

import ctypes
import re
from collections.abc import Sequence
from typing import Any

from shared.documents.page_boxes import SCALE
from workers.cpu.readers.characters import HYPHEN, MAX_CHARACTERS, TrackedText, read_characters
from workers.cpu.readers.page_arrangement import arrange_page
from workers.cpu.readers.pdf import BREAKING_HYPHEN, is_kept_hyphen
from workers.cpu.readers.text_builder import CONTROLS
from workers.cpu.repeated_lines import EDGE_LINES

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in units of ``SCALE``, from the top left corner of the page as it is shown."""

_MIN_MATCHING_SHARE = 0.5
_WORD = re.compile(r"\S+")


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
    # Without the headers of the page, the stored text begins at a later line.
    starts = [0]
    while len(starts) <= 2 * EDGE_LINES and (line_end := tracked.text.find("\n", starts[-1])) >= 0:
        starts.append(line_end + 1)
    candidates = (_match(TrackedText(tracked.text[start:], tracked.sources[start:]), stored) for start in starts)
    return max(candidates, key=lambda sources: sum(index >= 0 for index in sources))


def _match(tracked: TrackedText, stored: str) -> list[int]:
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
    # The document may have been read with another setting, or by an earlier version.
    arranged = arrange_page(raw, page, text_page, original)
    texts = [original] if arranged is None else [arranged, original]
    matches = [match_characters(track_text(text), stored) for text in texts]
    sources = max(matches, key=lambda found: sum(index >= 0 for index in found))
    boxes = []
    for offset, index in enumerate(sources):
        if index >= 0 and (box := _box(raw, page, text_page, index)) is not None:
            boxes.append((offset, box))
    return boxes


def add_line_boxes(
    boxes: Sequence[tuple[int, Box]], lines: Sequence[Sequence[int]], length: int, *, aspect: float
) -> list[tuple[int, Box]]:
    """Boxes of characters, with those of lines that OCR has read: [start, end, left, top, right, bottom] of a text of this length.

    OCR knows the place of a line only, so its characters are spread over it evenly. Those of a line that runs up or down have the box of
    the whole line. ``aspect`` is the width of the page divided by its height.
    """
    found = dict(boxes)
    for start, end, left, top, right, bottom in lines:
        is_level = (right - left) * aspect >= bottom - top or end - start == 1
        for offset in range(start, min(end, length)):
            before, after = ((offset - start) / (end - start), (offset + 1 - start) / (end - start)) if is_level else (0, 1)
            box = round(left + before * (right - left)), top, round(left + after * (right - left)), bottom
            if box[2] > box[0] and bottom > top:
                found.setdefault(offset, box)
    return sorted(found.items())


def _join_broken_words(original: TrackedText) -> TrackedText:
    characters: list[str] = []
    sources: list[int] = []

    def copy(start: int, end: int) -> None:
        for place in range(start, end):
            if original.text[place] != HYPHEN:
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
