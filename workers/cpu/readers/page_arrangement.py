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
_RETURNS_INT = ctypes.PYFUNCTYPE(ctypes.c_int)


def may_have_cells(raw: Any, text_page: Any, text: str) -> bool:
    """Whether some lines of a page have gaps as between cells or columns. A wrong yes only costs time."""
    return _has_sparse_lines(_CharacterBoxes(raw, text_page), text) or _has_gaps_in_the_middle(raw, text_page, text)


def arrange_page(raw: Any, page: Any, text_page: Any, original: TrackedText) -> TrackedText | None:
    """The text with its tables and columns arranged, or None if there are none."""
    if len(original.text) > MAX_CHARACTERS:
        return None
    segments = _segments(_CharacterBoxes(raw, text_page), original)
    pieces = arrange(original.text, segments, lambda: _rules(raw, page))
    return None if pieces is None else original.rearrange(pieces)


class _CharacterBoxes:
    """The boxes of the characters of a page. ``find(page, number, target)`` reads one into ``box``: left, top, right and bottom.

    pdfium has no call for several of them, and a page has hundreds of words.
    """

    def __init__(self, raw: Any, text_page: Any) -> None:
        box = (ctypes.c_float * 4)()
        self.find = _without_conversions(raw.FPDFText_GetLooseCharBox)
        self.page, self.target = ctypes.byref(text_page.contents), ctypes.byref(box)
        self.box = memoryview(box).cast("B").cast("f")


def _without_conversions(function: Any) -> Any:
    """A function of pdfium that returns an int, without the bindings' conversions of arguments, which take half of the time of a short call.
    Its pointers are those of ``ctypes.byref``."""
    return _RETURNS_INT(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _has_sparse_lines(boxes: _CharacterBoxes, text: str) -> bool:
    """Whether some lines are longer than their characters need, and have wide gaps."""
    find, page, target, box = boxes.find, boxes.page, boxes.target, boxes.box
    lines: list[tuple[float, float, int, int, int]] = []
    start = 0
    for number, line in enumerate(text.split("\r\n")[:_MAX_LINES]):
        shown = line.rstrip()
        if len(shown) >= _MIN_LINE_CHARACTERS and " " in shown and find(page, start, target):
            left, top, _, bottom = box
            if find(page, start + len(shown) - 1, target):
                lines.append(((box[2] - left) / len(shown), top - bottom, number, start, start + len(shown)))
        start += len(line) + 2
    if len(lines) < MIN_SIGNS:
        return False
    usual = sorted(density for density, *_ in lines)[len(lines) // 4]
    # Where all lines of a page are rows of a table, none is usual.
    sparse = [line for density, height, *line in lines if density > _SPARSE * usual or density > _VERY_SPARSE * height]
    signs: list[int] = []
    for number, start, end in _near_each_other(sparse):
        if _has_gap(boxes, text, start, end):
            signs.append(number)
            if len(signs) >= MIN_SIGNS and number - signs[-MIN_SIGNS] <= _MAX_DISTANCE:
                return True
    return False


def _near_each_other(lines: Sequence[list[int]]) -> list[list[int]]:
    """Lines, by their number first, that have enough others near them to be signs."""
    near: set[int] = set()
    for place in range(len(lines) - MIN_SIGNS + 1):
        if lines[place + MIN_SIGNS - 1][0] - lines[place][0] <= _MAX_DISTANCE:
            near.update(range(place, place + MIN_SIGNS))
    return [lines[place] for place in sorted(near)]


def _has_gap(boxes: _CharacterBoxes, text: str, start: int, end: int) -> bool:
    """Whether two words of a line are far apart without many spaces between them, and it is not program code."""
    find, page, target, box = boxes.find, boxes.page, boxes.target, boxes.box
    place = text.find(" ", start + 1, end)
    while place > 0:
        if text[place + 1] != " " and text[place - 1] != " " and find(page, place - 1, target):
            _, top, right, bottom = box
            if find(page, place + 1, target) and box[0] - right > MIN_GAP * (top - bottom):
                return not _has_even_characters(boxes, text, start, end)
        place = text.find(" ", place + 1, end)
    return False


def _has_even_characters(boxes: _CharacterBoxes, text: str, start: int, end: int) -> bool:
    """Whether all words of a line have characters of one width, as program code does."""
    find, page, target, box = boxes.find, boxes.page, boxes.target, boxes.box
    widths: list[float] = []
    for word in _WORD.finditer(text, start, end):
        if word.end() - word.start() > 2 and find(page, word.start(), target):
            left = box[0]
            if find(page, word.end() - 1, target):
                widths.append((box[2] - left) / (word.end() - word.start()))
                if abs(widths[-1] - widths[0]) > MAX_WIDTH_DIFFERENCE * widths[0]:
                    return False
    return len(widths) > 1


def _has_gaps_in_the_middle(raw: Any, text_page: Any, text: str) -> bool:
    """Whether texts in the middle of the page are beside each other, as the lines of columns are."""
    count = raw.FPDFText_CountRects(text_page, 0, -1)
    if count <= text.count("\n") + MIN_SIGNS:  # each line is one text
        return False
    first = max(0, (count - _SAMPLED_RECTANGLES) // 2)
    find, page = _without_conversions(raw.FPDFText_GetRect), ctypes.byref(text_page.contents)
    rectangle = (ctypes.c_double * 4)()
    targets = [ctypes.byref(rectangle, 8 * number) for number in range(4)]
    values = memoryview(rectangle).cast("B").cast("d")
    signs, last_right, last_top, last_bottom = 0, 0.0, 0.0, 0.0
    for index in range(first, min(count, first + _SAMPLED_RECTANGLES)):
        find(page, index, *targets)
        left, top, right, bottom = values
        if left > last_right:
            height = max(top - bottom, last_top - last_bottom)
            signs += left - last_right > MIN_GAP * height and min(top, last_top) - max(bottom, last_bottom) > 0.5 * height
            if signs >= MIN_SIGNS:
                return True
        last_right, last_top, last_bottom = right, top, bottom
    return False


def _segments(boxes: _CharacterBoxes, original: TrackedText) -> list[Segment]:
    """Parts of lines without wide gaps, in the order of the text. Text that spaces align, such as program code, is one part."""
    find, page, target, box = boxes.find, boxes.page, boxes.target, boxes.box
    text, sources = original.text, original.sources
    segments: list[Segment] = []
    words: list[Word] = []
    start = end = line_end = -1
    left = bottom = right = top = 0.0
    # pdfium puts a space between words that are apart.
    for found in _WORD.finditer(text):
        word_start, word_end = found.span()
        if not find(page, sources[word_start], target):
            continue
        word_left, word_top, word_right, word_bottom = box
        if word_end - word_start > 1 and find(page, sources[word_end - 1], target):
            left_side, _, right_side, _ = box  # the last character of a word is its left one in some scripts
            word_left = left_side if left_side < word_left else word_left
            word_right = right_side if right_side > word_right else word_right
        if word_right <= word_left:
            word_right = word_left + 0.1
        if word_start < line_end:
            height = word_top - word_bottom
            gap = word_left - right
            is_near = -height <= gap <= MIN_GAP * height or (gap > 0 and word_start - end >= _MIN_SPACES)
            # Smaller and raised characters belong to the line.
            same_line = 2 * (top if top < word_top else word_top) - 2 * (bottom if bottom > word_bottom else word_bottom) >= (
                height if height < top - bottom else top - bottom
            )
            if is_near and same_line:
                words.append((end, word_start, right, word_left))
                end = word_end
                right = word_right if word_right > right else right
                bottom = word_bottom if word_bottom < bottom else bottom
                top = word_top if word_top > top else top
                continue
        if start >= 0:
            segments.append(Segment(start, end, left, bottom, right, top, words))
        if word_start >= line_end:
            line_end = text.find("\n", word_start)
            line_end = len(text) if line_end < 0 else line_end
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
    get_object, get_type = raw.FPDFPage_GetObject, raw.FPDFPageObj_GetType
    path = raw.FPDF_PAGEOBJ_PATH
    for index in range(min(raw.FPDFPage_CountObjects(page), _MAX_OBJECTS)):
        item = get_object(page, index)
        if get_type(item) != path or not raw.FPDFPageObj_GetBounds(item, left, bottom, right, top):
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
