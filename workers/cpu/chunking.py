"""Chunking: splits the text of pages into chunks that fit the embedding model, each with its page and character range.

Text is split at headings first, then between paragraphs, lines, sentences and words; source code between definitions. A
chunk never spans pages, because a citation names one page and one character range. Lengths are counted in the model's own
tokens: with lengths in characters, the model would silently truncate dense chunks.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

# Some tokenizers count a long unbroken string, or a run of spaces, as very few tokens. This limits the characters per token,
# because otherwise such a page would be a single chunk, and its citation a megabyte long.
CHARACTERS_PER_TOKEN = 10

# A section shorter than this share of a chunk is joined to the next one, as it would be too short to be useful on its own.
SHORT_SECTION = 0.25

MAX_TITLE_CHARACTERS = 200

# Token counts of short texts are cached. Long texts rarely repeat, and would fill the cache with megabytes.
CACHED_COUNTS, MAX_CACHED_CHARACTERS = 8192, 100

_WORD = re.compile(r"\S+")
_PROSE = ["\n\n", "\n", "。", ". ", "? ", "! ", " ", ""]
# The language of source code, as the splitter names it.
_CODE = {
    ".c": "c",
    ".cpp": "cpp",
    ".cs": "csharp",
    ".go": "go",
    ".java": "java",
    ".js": "js",
    ".kt": "kotlin",
    ".lua": "lua",
    ".php": "php",
    ".py": "python",
    ".rb": "ruby",
    ".rs": "rust",
    ".scala": "scala",
    ".swift": "swift",
    ".ts": "ts",
    ".h": "cpp",
    ".hpp": "cpp",
}


class Paged(Protocol):
    """A page. Each heading has its offset in the text, its level from 1, and its title."""

    @property
    def number(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def headings(self) -> Sequence[Sequence[Any]]: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def ocr_start(self) -> int: ...
    @property
    def ocr_parts(self) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True)
class Chunk:
    """Part of one page: ``text`` is exactly ``page_text[start:end]``. ``page`` counts from 1, ``position`` from 0.
    ``headings`` are the titles of the enclosing sections, outermost first. ``confidence`` is that of OCR, or None if no part of
    the text comes from OCR."""

    position: int
    page: int
    start: int
    end: int
    text: str
    headings: Sequence[str] = ()
    confidence: float | None = None


@dataclass(frozen=True)
class _Section:
    start: int
    end: int
    headings: tuple[str, ...]


def chunk_pages(
    pages: Iterable[Paged], count_tokens: Callable[[str], int], *, size: int, overlap: int, name: str = ""
) -> Iterator[Chunk]:
    """The chunks of a document in order, each of at most ``size`` tokens.

    Up to ``overlap`` tokens, in whole words, repeat the end of the previous chunk if it is in the same section and page.
    ``name`` is the document's name; its suffix selects the programming language of source code.
    """

    # It imports five hundred modules, which a process without documents does not need.
    from langchain_text_splitters import Language, RecursiveCharacterTextSplitter

    def count(text: str) -> int:
        return max(count_tokens(text), -(-len(text) // CHARACTERS_PER_TOKEN))

    # Words and line ends repeat thousands of times; without a cache, the tokenizer took four fifths of the chunking time.
    cached_count = lru_cache(CACHED_COUNTS)(count)

    def length(text: str) -> int:
        return cached_count(text) if len(text) <= MAX_CACHED_CHARACTERS else count(text)

    # The splitter runs without overlap, so that its pieces are consecutive and their offsets certain. The overlap is added
    # here. With the splitter's own overlap, offsets would have to be searched for, and repeated text would mislead the search.
    language = _CODE.get(PurePath(name).suffix.lower())
    splitter = RecursiveCharacterTextSplitter(
        separators=_PROSE if language is None else RecursiveCharacterTextSplitter.get_separators_for_language(Language(language)),
        is_separator_regex=language is not None,
        keep_separator="end" if language is None else "start",
        chunk_size=size - overlap,
        chunk_overlap=0,
        length_function=length,
    )
    position = 0
    path: dict[int, str] = {}
    for page in pages:
        sections = _join_short(page.text, list(_sections(page, path)), length, int(size * SHORT_SECTION), size - overlap)
        for section in sections:
            pieces = _pieces(page.text, section, splitter)
            for start, end in _with_overlap(page.text, pieces, length, overlap, size):
                confidence = _confidence(page, start, end)
                yield Chunk(position, page.number, start, end, page.text[start:end], section.headings, confidence)
                position += 1


def _confidence(page: Paged, start: int, end: int) -> float | None:
    """The confidence of OCR for what a chunk has of it: that of the page, or the mean of the pictures inside its text."""
    if end > page.ocr_start:
        return page.confidence
    inside = [(min(end, last) - max(start, first), confidence) for first, last, confidence in page.ocr_parts]
    inside = [(length, confidence) for length, confidence in inside if length > 0]
    return sum(length * confidence for length, confidence in inside) / sum(length for length, _ in inside) if inside else None


def _sections(page: Paged, path: dict[int, str]) -> Iterator[_Section]:
    """The sections of a page, one per heading. ``path`` holds the current titles by level, and is carried from page to page."""
    start = 0
    for offset, level, title in page.headings:
        begin = min(max(int(offset), start), len(page.text))
        if begin > start:
            yield _Section(start, begin, _titles(path))
        start = begin
        for deeper in [other for other in path if other >= level]:
            del path[deeper]
        path[int(level)] = " ".join(str(title).split())[:MAX_TITLE_CHARACTERS]
    if start < len(page.text):
        yield _Section(start, len(page.text), _titles(path))


def _titles(path: dict[int, str]) -> tuple[str, ...]:
    return tuple(path[level] for level in sorted(path) if path[level])


def _join_short(
    text: str, sections: Sequence[_Section], length: Callable[[str], int], short: int, limit: int
) -> Iterator[_Section]:
    """Join short sections to the next one if both fit into one chunk; the joined section keeps the titles they share."""
    pending: _Section | None = None
    for section in sections:
        if pending is not None:
            fits = length(text[pending.start : pending.end]) < short and length(text[pending.start : section.end]) <= limit
            if fits or _is_title(text, pending):
                section = _Section(pending.start, section.end, _shared(text, pending, section))
            else:
                yield pending
        pending = section
    if pending is not None:
        yield pending


def _shared(text: str, first: _Section, second: _Section) -> tuple[str, ...]:
    if not first.headings or _is_title(text, first):
        return second.headings
    shared = 0
    for title, other in zip(first.headings, second.headings, strict=False):
        if title != other:
            break
        shared += 1
    return first.headings[:shared]


def _is_title(text: str, section: _Section) -> bool:
    """Whether the section contains only its title, in which case it belongs to the next section."""
    own = " ".join(text[section.start : section.end].split())
    return len(own) <= len(section.headings[-1] if section.headings else "") + 8


def _pieces(text: str, section: _Section, splitter: "RecursiveCharacterTextSplitter") -> Iterator[tuple[int, int]]:
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

    previous: tuple[int, int] | None = None
    for start, end in pieces:
        begin = start
        if previous is not None and overlap:
            # Every word has at least one token, so at most the last ``overlap`` words can repeat. The later the start, the shorter
            # the overlap, so the first start that fits can be found by bisection.
            words = [word.start() for word in _WORD.finditer(text, *previous)][-overlap:]
            first = bisect_left(words, True, key=partial(fits, start=start, end=end))
            begin = words[first] if first < len(words) else start
        yield from _split_to_fit(text, begin, end, length, size)
        previous = (start, end)


def _split_to_fit(text: str, start: int, end: int, length: Callable[[str], int], size: int) -> Iterator[tuple[int, int]]:
    """The range itself, or its halves where the tokenizer counts more tokens for the whole than for its parts."""
    if end - start > 1 and length(text[start:end]) > size:
        middle = (start + end) // 2
        yield from _split_to_fit(text, start, middle, length, size)
        yield from _split_to_fit(text, middle, end, length, size)
    else:
        yield start, end
