"""Cuts the text of pages into chunks that the embedding model sees whole, each with the place where it stands.

Lengths are counted in the model's own tokens, as cuts by characters lose the ends of dense chunks in silence. Knows
nothing of files, vectors or jobs.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from langchain_text_splitters import RecursiveCharacterTextSplitter

# A tokenizer may count a long unbroken string, or any run of spaces, as next to nothing. No chunk has more characters
# than this a token, or one such page would be one chunk, and one citation a megabyte.
CHARACTERS_PER_TOKEN = 10

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Chunk:
    """A piece of one page: ``text`` is exactly ``page_text[start:end]``. ``page`` counts from 1, ``position`` from 0."""

    position: int
    page: int
    start: int
    end: int
    text: str


def chunk_pages(
    pages: Iterable[tuple[int, str]], count_tokens: Callable[[str], int], *, size: int, overlap: int
) -> Iterator[Chunk]:
    """The chunks of a document, page by page, of at most ``size`` tokens.

    Up to ``overlap`` of them, in whole words, repeat the end of the chunk before on the same page.
    """

    def length(text: str) -> int:
        return max(count_tokens(text), -(-len(text) // CHARACTERS_PER_TOKEN))

    # The splitter cuts without overlap, so that its pieces follow one another and each has one place; what they repeat
    # is added here. Its own overlap would leave the place of a piece to a search, which repeated text leads astray.
    splitter = RecursiveCharacterTextSplitter(chunk_size=size - overlap, chunk_overlap=0, length_function=length)
    position = 0
    for page, text in pages:
        for start, end in _with_overlap(text, _pieces(text, splitter), length, overlap, size):
            yield Chunk(position, page, start, end, text[start:end])
            position += 1


def _pieces(text: str, splitter: RecursiveCharacterTextSplitter) -> Iterator[tuple[int, int]]:
    end = 0
    for piece in splitter.split_text(text):
        start = text.index(piece, end)
        end = start + len(piece)
        yield start, end


def _with_overlap(
    text: str, pieces: Iterable[tuple[int, int]], length: Callable[[str], int], overlap: int, size: int
) -> Iterator[tuple[int, int]]:
    before: tuple[int, int] | None = None
    for start, end in pieces:
        begin = start
        if before is not None and overlap:
            for word in reversed(list(_WORD.finditer(text, *before))):
                if length(text[word.start() : start]) > overlap or length(text[word.start() : end]) > size:
                    break
                begin = word.start()
        yield from _fitting(text, begin, end, length, size)
        before = (start, end)


def _fitting(text: str, start: int, end: int, length: Callable[[str], int], size: int) -> Iterator[tuple[int, int]]:
    """The piece itself; in halves where a tokenizer counts more for the whole than for the parts it was joined from."""
    if end - start > 1 and length(text[start:end]) > size:
        middle = (start + end) // 2
        yield from _fitting(text, start, middle, length, size)
        yield from _fitting(text, middle, end, length, size)
    else:
        yield start, end
