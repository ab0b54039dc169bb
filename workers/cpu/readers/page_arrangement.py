"""Arrangement of a page of a PDF: finds its characters, lines and gaps with pdfium, and puts its text into the order of ``page_layout``.

Most pages have nothing to arrange. ``may_have_cells`` looks only at the ends of their lines, because the box of each
character takes longer to read than the text.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from typing import Any

from workers.cpu.readers.characters import HYPHEN, MAX_CHARACTERS, TrackedText
from workers.cpu.readers.page_layout import MAX_WIDTH_DIFFERENCE, MIN_GAP, Rule, Segment, Word, arrange

MIN_SIGNS = 3
"""Lines with gaps, near each other, that a page must have."""

_SPARSE, _VERY_SPARSE = 1.35, 0.85
_MIN_LINE_CHARACTERS, _MAX_LINES, _MAX_DISTANCE = 4, 200, 8
_SAMPLED_RECTANGLES = 48
# pdfium writes no line end where it joins the parts of a broken word.
_WORD = re.compile(rf"[^\s{HYPHEN}]+{HYPHEN}?|{HYPHEN}")
_MIN_SPACES = 2
_MAX_OBJECTS, _MAX_RULES = 10_000, 2000
_MAX_RULE_WIDTH = 3.0
_MIN_RULE_LENGTH = 8.0


def may_have_cells(raw: Any, text_page: Any, text: str) -> bool:
    """Whether some lines of a page have gaps as between cells or columns. A wrong yes only costs time."""
    return _has_sparse_lines(raw, text_page, text) or _has_gaps_in_the_middle(raw, text_page, text)


def arrange_page(raw: Any, page: Any, text_page: Any, original: TrackedText) -> TrackedText | None:
    """The text with its tables and columns arranged, or None if there are none."""
    if len(original.text) > MAX_CHARACTERS:
        return None
    segments = _segments(raw, text_page, original)
    pieces = arrange(original.text, segments, lambda: _rules(raw, page))
    return None if pieces is None else original.rearrange(pieces)


def _has_sparse_lines(raw: Any, text_page: Any, text: str) -> bool:
    """Whether some lines are longer than their characters need, and have wide gaps."""
    box = raw.FS_RECTF()
    find = raw.FPDFText_GetLooseCharBox
    lines: list[tuple[float, int, int, int]] = []
    start = 0
    for number, line in enumerate(text.split("\r\n")[:_MAX_LINES]):
        shown = line.rstrip()
        if len(shown) >= _MIN_LINE_CHARACTERS and " " in shown and find(text_page, start, box):
            left = box.left
            if find(text_page, start + len(shown) - 1, box):
                lines.append(((box.right - left) / len(shown), number, start, start + len(shown)))
        start += len(line) + 2
    if len(lines) < MIN_SIGNS:
        return False
    usual = sorted(density for density, *_ in lines)[len(lines) // 4]
    signs: list[int] = []
    for density, number, start, end in lines:
        # Where all lines of a page are rows of a table, none is usual.
        is_sparse = density > min(_SPARSE * usual, _VERY_SPARSE * _height(raw, text_page, start, box))
        if is_sparse and _has_gap(raw, text_page, text, start, end, box):
            signs.append(number)
            if len(signs) >= MIN_SIGNS and number - signs[-MIN_SIGNS] <= _MAX_DISTANCE:
                return True
    return False


def _height(raw: Any, text_page: Any, place: int, box: Any) -> float:
    return float(box.top - box.bottom) if raw.FPDFText_GetLooseCharBox(text_page, place, box) else 0.0


def _has_gap(raw: Any, text_page: Any, text: str, start: int, end: int, box: Any) -> bool:
    """Whether two words of a line are far apart without many spaces between them, and it is not program code."""
    find = raw.FPDFText_GetLooseCharBox
    place = text.find(" ", start + 1, end)
    while place > 0:
        if text[place + 1] != " " and text[place - 1] != " " and find(text_page, place - 1, box):
            right, height = box.right, box.top - box.bottom
            if find(text_page, place + 1, box) and box.left - right > MIN_GAP * height:
                return not _has_even_characters(raw, text_page, text, start, end, box)
        place = text.find(" ", place + 1, end)
    return False


def _has_even_characters(raw: Any, text_page: Any, text: str, start: int, end: int, box: Any) -> bool:
    """Whether all words of a line have characters of one width, as program code does."""
    find = raw.FPDFText_GetLooseCharBox
    widths: list[float] = []
    for word in _WORD.finditer(text, start, end):
        if word.end() - word.start() > 2 and find(text_page, word.start(), box):
            left = box.left
            if find(text_page, word.end() - 1, box):
                widths.append((box.right - left) / (word.end() - word.start()))
                if abs(widths[-1] - widths[0]) > MAX_WIDTH_DIFFERENCE * widths[0]:
                    return False
    return len(widths) > 1


def _has_gaps_in_the_middle(raw: Any, text_page: Any, text: str) -> bool:
    """Whether texts in the middle of the page are beside each other, as the lines of columns are."""
    count = raw.FPDFText_CountRects(text_page, 0, -1)
    if count <= text.count("\n") + MIN_SIGNS:  # each line is one text
        return False
    first = max(0, (count - _SAMPLED_RECTANGLES) // 2)
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    signs, last = 0, (0.0, 0.0, 0.0)
    for index in range(first, min(count, first + _SAMPLED_RECTANGLES)):
        raw.FPDFText_GetRect(text_page, index, left, top, right, bottom)
        height = max(top.value - bottom.value, last[1] - last[2])
        if left.value - last[0] > MIN_GAP * height and min(top.value, last[1]) - max(bottom.value, last[2]) > 0.5 * height:
            signs += 1
        last = right.value, top.value, bottom.value
    return signs >= MIN_SIGNS


def _segments(raw: Any, text_page: Any, original: TrackedText) -> list[Segment]:
    """Parts of lines without wide gaps, in the order of the text. Text that spaces align, such as program code, is one part."""
    box = raw.FS_RECTF()
    find = raw.FPDFText_GetLooseCharBox
    text, sources = original.text, original.sources
    segments: list[Segment] = []
    words: list[Word] = []
    start = end = -1
    left = bottom = right = top = 0.0
    # pdfium puts a space between words that are apart.
    for found in _WORD.finditer(text):
        word_start, word_end = found.span()
        if not find(text_page, sources[word_start], box):
            continue
        word_left, word_bottom, word_right, word_top = box.left, box.bottom, box.right, box.top
        if find(text_page, sources[word_end - 1], box):  # the last character of a word is its left one in some scripts
            word_left = box.left if box.left < word_left else word_left
            word_right = box.right if box.right > word_right else word_right
        if word_right <= word_left:
            word_right = word_left + 0.1
        if start >= 0:
            height = word_top - word_bottom
            gap = word_left - right
            is_near = -height <= gap <= MIN_GAP * height or (gap > 0 and word_start - end >= _MIN_SPACES)
            # Smaller and raised characters belong to the line.
            same_line = 2 * (top if top < word_top else word_top) - 2 * (bottom if bottom > word_bottom else word_bottom) >= (
                height if height < top - bottom else top - bottom
            )
            if is_near and same_line and text.find("\n", end, word_start) < 0:
                words.append(Word(end, word_start, right, word_left))
                end = word_end
                right = word_right if word_right > right else right
                bottom = word_bottom if word_bottom < bottom else bottom
                top = word_top if word_top > top else top
                continue
            segments.append(Segment(start, end, left, bottom, right, top, words))
        start, end, words = word_start, word_end, []
        left, bottom, right, top = word_left, word_bottom, word_right, word_top
    if start >= 0:
        segments.append(Segment(start, end, left, bottom, right, top, words))
    return segments


def _rules(raw: Any, page: Any) -> Sequence[Rule]:
    """Lines that are drawn on the page, and the edges of its filled areas."""
    return [rule for _, rule in zip(range(_MAX_RULES), _all_rules(raw, page), strict=False)]


def _all_rules(raw: Any, page: Any) -> Iterator[Rule]:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    for index in range(min(raw.FPDFPage_CountObjects(page), _MAX_OBJECTS)):
        item = raw.FPDFPage_GetObject(page, index)
        if raw.FPDFPageObj_GetType(item) != raw.FPDF_PAGEOBJ_PATH or not raw.FPDFPageObj_GetBounds(
            item, left, bottom, right, top
        ):
            continue
        box = Rule(left.value, bottom.value, right.value, top.value)
        width, height = box.right - box.left, box.top - box.bottom
        if min(width, height) <= _MAX_RULE_WIDTH:
            if max(width, height) >= _MIN_RULE_LENGTH:
                yield box
        else:
            yield Rule(box.left, box.top, box.right, box.top)
            yield Rule(box.left, box.bottom, box.right, box.bottom)
            yield Rule(box.left, box.bottom, box.left, box.top)
            yield Rule(box.right, box.bottom, box.right, box.top)
