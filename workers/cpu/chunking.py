"""Cuts the text of pages into chunks that the embedding model sees whole, each with the place where it stands.

It cuts at headings first, then between paragraphs, lines, sentences and words; source code between its definitions. A chunk
never spans pages: a citation names one page and one range of it. Lengths are counted in the model's own tokens, as cuts by
characters lose the ends of dense chunks in silence. Knows nothing of files, vectors or jobs.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePath
from typing import Any, Protocol

from langchain_text_splitters import Language, RecursiveCharacterTextSplitter

# A tokenizer may count a long unbroken string, or any run of spaces, as next to nothing. No chunk has more characters
# than this a token, or one such page would be one chunk, and one citation a megabyte.
CHARACTERS_PER_TOKEN = 10

# A section with less than this share of a chunk's tokens is joined to the next one: alone it would say too little.
SHORT_SECTION = 0.25

LONGEST_TITLE = 200

# Counts of short texts are kept; a long one hardly comes twice, and thousands of them would be megabytes.
COUNTS_KEPT, LONGEST_KEPT = 8192, 100

_WORD = re.compile(r"\S+")
_PROSE = ["\n\n", "\n", "。", ". ", "? ", "! ", " ", ""]
_CODE = {
    ".c": Language.C,
    ".cpp": Language.CPP,
    ".cs": Language.CSHARP,
    ".go": Language.GO,
    ".java": Language.JAVA,
    ".js": Language.JS,
    ".kt": Language.KOTLIN,
    ".lua": Language.LUA,
    ".php": Language.PHP,
    ".py": Language.PYTHON,
    ".rb": Language.RUBY,
    ".rs": Language.RUST,
    ".scala": Language.SCALA,
    ".swift": Language.SWIFT,
    ".ts": Language.TS,
    ".h": Language.CPP,
    ".hpp": Language.CPP,
}


class Paged(Protocol):
    """A page; ``headings`` are lists of start in the text, level from 1, and title."""

    @property
    def number(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def headings(self) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True)
class Chunk:
    """A piece of one page: ``text`` is exactly ``page_text[start:end]``. ``page`` counts from 1, ``position`` from 0;
    ``headings`` are the titles that it stands under, outermost first."""

    position: int
    page: int
    start: int
    end: int
    text: str
    headings: Sequence[str] = ()


@dataclass(frozen=True)
class _Section:
    start: int
    end: int
    headings: tuple[str, ...]


def chunk_pages(
    pages: Iterable[Paged], count_tokens: Callable[[str], int], *, size: int, overlap: int, name: str = ""
) -> Iterator[Chunk]:
    """The chunks of a document, page by page, of at most ``size`` tokens.

    Up to ``overlap`` of them, in whole words, repeat the end of the chunk before in the same section of the same page.
    ``name`` is the document's; its ending tells in which language code is written.
    """

    def counted(text: str) -> int:
        return max(count_tokens(text), -(-len(text) // CHARACTERS_PER_TOKEN))

    # Words and line ends come by the thousand: asked each time, the tokenizer took four fifths of the cutting.
    kept = lru_cache(COUNTS_KEPT)(counted)

    def length(text: str) -> int:
        return kept(text) if len(text) <= LONGEST_KEPT else counted(text)

    # The splitter cuts without overlap, so that its pieces follow one another and each has one place; what they repeat
    # is added here. Its own overlap would leave the place of a piece to a search, which repeated text leads astray.
    language = _CODE.get(PurePath(name).suffix.lower())
    splitter = RecursiveCharacterTextSplitter(
        separators=_PROSE if language is None else RecursiveCharacterTextSplitter.get_separators_for_language(language),
        is_separator_regex=language is not None,
        keep_separator="end" if language is None else "start",
        chunk_size=size - overlap,
        chunk_overlap=0,
        length_function=length,
    )
    position, path = 0, {}  # type: int, dict[int, str]
    for page in pages:
        sections = _joined(page.text, list(_sections(page, path)), length, int(size * SHORT_SECTION), size - overlap)
        for section in sections:
            pieces = _pieces(page.text, section, splitter)
            for start, end in _with_overlap(page.text, pieces, length, overlap, size):
                yield Chunk(position, page.number, start, end, page.text[start:end], section.headings)
                position += 1


def _sections(page: Paged, path: dict[int, str]) -> Iterator[_Section]:
    """The page from heading to heading. ``path`` has the titles in force, by level, and goes from page to page."""
    start = 0
    for place, level, title in page.headings:
        begin = min(max(int(place), start), len(page.text))
        if begin > start:
            yield _Section(start, begin, _titles(path))
        start = begin
        for deeper in [other for other in path if other >= level]:
            del path[deeper]
        path[int(level)] = " ".join(str(title).split())[:LONGEST_TITLE]
    if start < len(page.text):
        yield _Section(start, len(page.text), _titles(path))


def _titles(path: dict[int, str]) -> tuple[str, ...]:
    return tuple(path[level] for level in sorted(path) if path[level])


def _joined(text: str, sections: Sequence[_Section], length: Callable[[str], int], short: int, most: int) -> Iterator[_Section]:
    """The sections, short ones joined to what follows as long as both make one chunk, under the titles they share."""
    waiting: _Section | None = None
    for section in sections:
        if waiting is not None:
            fits = length(text[waiting.start : waiting.end]) < short and length(text[waiting.start : section.end]) <= most
            if fits or _is_title(text, waiting):
                section = _Section(waiting.start, section.end, _shared(text, waiting, section))
            else:
                yield waiting
        waiting = section
    if waiting is not None:
        yield waiting


def _shared(text: str, first: _Section, second: _Section) -> tuple[str, ...]:
    if not first.headings or _is_title(text, first):
        return second.headings
    same = 0
    for one, other in zip(first.headings, second.headings, strict=False):
        if one != other:
            break
        same += 1
    return first.headings[:same]


def _is_title(text: str, section: _Section) -> bool:
    """Whether nothing is under the title but the next one; it then belongs to the section that follows."""
    own = " ".join(text[section.start : section.end].split())
    return len(own) <= len(section.headings[-1] if section.headings else "") + 8


def _pieces(text: str, section: _Section, splitter: RecursiveCharacterTextSplitter) -> Iterator[tuple[int, int]]:
    end = section.start
    for piece in splitter.split_text(text[section.start : section.end]):
        start = text.index(piece, end)
        end = start + len(piece)
        yield start, end


def _with_overlap(
    text: str, pieces: Iterable[tuple[int, int]], length: Callable[[str], int], overlap: int, size: int
) -> Iterator[tuple[int, int]]:
    def fits(begin: int, start: int, end: int) -> bool:
        return length(text[begin:start]) <= overlap and length(text[begin:end]) <= size

    before: tuple[int, int] | None = None
    for start, end in pieces:
        begin = start
        if before is not None and overlap:
            # A word has a token at least, and the later one begins, the less is repeated.
            words = [word.start() for word in _WORD.finditer(text, *before)][-overlap:]
            first = bisect_left(words, True, key=partial(fits, start=start, end=end))
            begin = words[first] if first < len(words) else start
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
