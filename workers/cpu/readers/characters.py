"""Characters of a PDF page with the numbers that pdfium gives them, so that the box of each stays known when the text is rearranged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CHARACTERS = 200_000
"""Pages with more characters get neither a layout nor boxes, which would take minutes."""

HYPHEN = "\ufffe"
"""What pdfium writes for a hyphen between letters or digits at the end of a line."""

NO_SOURCE = -1
"""The source of a character that is not on the page, such as the bars between the cells of a table."""


@dataclass(frozen=True)
class TrackedText:
    """A text, and for each of its characters the number of pdfium's character that it comes from."""

    text: str
    sources: Sequence[int]

    def rearrange(self, pieces: Iterable["Piece"]) -> "TrackedText":
        """A new text made of pieces of this one and other texts, in this order."""
        texts: list[str] = []
        sources: list[int] = []
        for piece in pieces:
            if isinstance(piece, str):
                texts.append(piece)
                sources += [NO_SOURCE] * len(piece)
            else:
                start, end = piece
                texts.append(self.text[start:end])
                sources += self.sources[start:end]
        return TrackedText("".join(texts), sources)


Piece = str | tuple[int, int]
"""A separate text, or the range of a tracked text from the first number up to the second (exclusive)."""


def read_characters(raw: Any, text_page: Any) -> TrackedText:
    """The characters of a page as pdfium's own text has them."""
    characters, sources = [], []
    for index in range(min(raw.FPDFText_CountChars(text_page), MAX_CHARACTERS + 1)):
        code = raw.FPDFText_GetUnicode(text_page, index)
        if not code:  # the font does not say which letter it is
            continue
        characters.append(HYPHEN if code == 2 and raw.FPDFText_IsHyphen(text_page, index) == 1 else chr(code))
        sources.append(index)
    return TrackedText("".join(characters), sources)
