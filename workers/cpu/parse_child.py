"""The child process that opens one hostile file and writes its pages to standard output, a JSON object a line.

It limits itself before it opens anything, and imports nothing of ours but the guess at a text's encoding. It knows
nothing of documents, jobs or Redis, and gets neither the environment nor the open files of its parent. Lines:

    {"pages": 90, "title": "…"}                                          once, first
    {"page": 1, "text": "…", "images": false, "reader": "pypdfium2"}     for each page, in order
    {"page": 2, "fault": "pypdfium2: …"}                                  a page that no reader could read
    {"end": "read"}                                                      or
    {"end": "encrypted" | "unsupported" | "too_large" | "unreadable", "reason": "…"}
"""

import ctypes
import json
import math
import resource
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

# A text file has no pages of its own; where it has no form feeds either, so many characters count as one.
TEXT_PAGE_CHARACTERS = 100_000

_CONTROLS = {code: None for code in range(32) if chr(code) not in "\n\t"} | {0xFFFE: "-", 0xFFFF: None}
_CONTROLS |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


class Rejected(Exception):
    """The file as a whole cannot be read; ``end`` is one of the ends above."""

    def __init__(self, end: str, reason: str) -> None:
        super().__init__(reason)
        self.end = end


class Reader(Protocol):
    """One way to read one file. ``read`` takes page numbers from 1 and tells the text and whether there are images."""

    name: str
    pages: int
    title: str

    def read(self, number: int) -> tuple[str, bool]: ...


class PdfiumReader:
    """The usual reader: fast, and right about spaces."""

    name = "pypdfium2"

    def __init__(self, path: str) -> None:
        import pypdfium2

        self._raw: Any = pypdfium2.raw
        try:
            self._document = pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as error:
            if error.err_code == self._raw.FPDF_ERR_PASSWORD:
                raise Rejected("encrypted", "It opens only with a password. Upload a copy without one.") from error
            raise
        self.pages = len(self._document)
        self.title = str(self._document.get_metadata_value("Title"))

    def read(self, number: int) -> tuple[str, bool]:
        page = self._document[number - 1]
        try:
            text_page = page.get_textpage()
            # A hyphen that only breaks a line comes as U+FFFE with the line break taken out; without it the word is whole.
            text = str(text_page.get_text_range(errors="ignore")).replace("\ufffe\r\n", "").replace("\ufffe", "")
            text_page.close()
            images = not text.strip() and any(True for _ in page.get_objects(filter=[self._raw.FPDF_PAGEOBJ_IMAGE]))
            return text, images
        finally:
            page.close()


class PypdfReader:
    """The second opinion: slower, and it reads some broken files that the usual reader refuses."""

    name = "pypdf"

    def __init__(self, path: str) -> None:
        import pypdf

        self._document = pypdf.PdfReader(path)
        if self._document.is_encrypted and not self._document.decrypt(""):
            raise Rejected("encrypted", "It opens only with a password. Upload a copy without one.")
        self.pages = len(self._document.pages)
        self.title = str(self._document.metadata.title or "") if self._document.metadata else ""

    def read(self, number: int) -> tuple[str, bool]:
        page = self._document.pages[number - 1]
        text: str = page.extract_text()
        return text, not text.strip() and bool(page.images.keys())


class TextReader:
    """Plain text, cut into pages at form feeds."""

    name = "text"

    def __init__(self, path: str) -> None:
        text = decode(Path(path).read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
        self._pages = [piece for sheet in text.split("\f") for piece in _pieces(sheet, TEXT_PAGE_CHARACTERS)]
        self.pages = len(self._pages)
        self.title = ""

    def read(self, number: int) -> tuple[str, bool]:
        return self._pages[number - 1], False


READERS: dict[str, Callable[[str], Reader]] = {"pypdfium2": PdfiumReader, "pypdf": PypdfReader, "text": TextReader}


def decode(data: bytes) -> str:
    """The text that the bytes are. Raises Rejected when they are not text."""
    from shared.documents.kinds import HEAD, SUPPORTED, encoding

    codec = encoding(data[:HEAD], whole=len(data) <= HEAD)
    try:
        if codec is not None:
            return data.decode(codec)
    except UnicodeDecodeError as error:
        # The beginning was plain ASCII and told nothing; the encoding shows around the first character that is not.
        codec = encoding(data[max(0, error.start - 64) : error.start + HEAD])
        if codec is not None and not codec.startswith("utf"):
            return data.decode(codec, errors="replace")
    raise Rejected("unsupported", f"It is not text in an encoding that is known. Supported are {SUPPORTED}.")


def _pieces(text: str, size: int) -> list[str]:
    pieces, start = [], 0
    while len(text) - start > size:
        newline = text.rfind("\n", start + size // 2, start + size)
        end = newline + 1 if newline >= 0 else start + size
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def restrict(memory_bytes: int, seconds: float) -> None:
    """Take from this process what reading a file never needs."""
    processor = math.ceil(seconds) + 1  # the parent's clock comes first; this one holds even without it
    for what, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def tell(**line: object) -> None:
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    sys.stdout.buffer.flush()


def run(path: str, reader_name: str, first: int, max_pages: int, max_page_characters: int) -> None:
    """Read the pages from ``first`` on and tell each. Raises Rejected, or whatever the reader raises on opening."""
    reader = READERS[reader_name](path)
    second_opinion = cache(lambda: PypdfReader(path))
    if reader.pages > max_pages:
        raise Rejected("too_large", f"It has {reader.pages} pages; at most {max_pages} are read (ENGINEHOUSE_MAX_PAGES).")
    tell(pages=reader.pages, title=reader.title.encode("utf-8", "ignore").decode()[:500])
    for number in range(first, reader.pages + 1):
        text, images, name = _read_page(reader, second_opinion, number)
        if name is None:
            tell(page=number, fault=text)
            continue
        if len(text) > max_page_characters:
            raise Rejected(
                "too_large",
                f"Page {number} has more than {max_page_characters} characters, the most of one page (ENGINEHOUSE_MAX_PAGE_CHARACTERS).",
            )
        tell(page=number, text=text, images=images, reader=name)
    tell(end="read")


def _read_page(reader: Reader, second_opinion: Callable[[], Reader], number: int) -> tuple[str, bool, str | None]:
    fault = ""
    opinions: tuple[Callable[[], Reader], ...] = (lambda: reader, second_opinion)
    for opinion in opinions:
        chosen = None
        try:
            chosen = opinion()
            text, images = chosen.read(number)
            return clean(text), images, chosen.name
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a broken page may raise anything; the others are still wanted
            fault = fault or f"{chosen.name if chosen else 'pypdf'}: {type(error).__name__}: {error}"[:200]
    return fault, False, None


def clean(text: str) -> str:
    """Lines end in a newline; control characters, lone surrogates and non-characters, which no index takes, are gone."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)


def main() -> None:
    order = json.loads(sys.argv[1])
    restrict(order["memory_bytes"], order["seconds"])
    try:
        run(order["path"], order["reader"], order["first"], order["max_pages"], order["max_page_characters"])
    except Rejected as rejected:
        tell(end=rejected.end, reason=str(rejected))
    except MemoryError:
        mebibytes = order["memory_bytes"] // 2**20
        tell(end="too_large", reason=f"Reading it takes more than {mebibytes} MiB of memory (ENGINEHOUSE_PARSE_MEMORY_BYTES).")
    except Exception as error:  # noqa: BLE001 - the top of the process; the parent decides what to make of it
        tell(end="unreadable", reason=f"{order['reader']}: {type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main()
