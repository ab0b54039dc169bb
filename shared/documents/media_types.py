"""What kind of file a document is, judged by its content; its name only tells flavours of text apart.

Looks at the beginning of a file and, of a zip, at its list of members. Opens nothing with a parser.
"""

import json
import re
import zlib
from pathlib import Path, PurePosixPath

from shared.documents.text_encoding import encoding
from shared.documents.zip_listing import zip_members

MediaType = str

PDF: MediaType = "application/pdf"
TEXT: MediaType = "text/plain"
MARKDOWN: MediaType = "text/markdown"
SOURCE: MediaType = "text/x-source"
CSV: MediaType = "text/csv"
HTML: MediaType = "text/html"
JSON: MediaType = "application/json"
JSON_LINES: MediaType = "application/jsonl"
RTF: MediaType = "application/rtf"
EMAIL: MediaType = "message/rfc822"
EPUB: MediaType = "application/epub+zip"
DOCX: MediaType = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX: MediaType = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX: MediaType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
OLE: MediaType = "application/x-ole-storage"
"""Office's older container: old Word, Excel and PowerPoint files, and new ones that are encrypted."""
ZIP: MediaType = "application/zip"
TAR: MediaType = "application/x-tar"
UNSUPPORTED: MediaType = "application/octet-stream"

ARCHIVES = (ZIP, TAR)
"""What is unpacked when it is uploaded, each member becoming a document."""

SUPPORTED = (
    "PDF, Word (.docx), PowerPoint (.pptx), Excel (.xlsx), HTML, EPUB, RTF, e-mail (.eml), CSV, JSON, JSON Lines, Markdown, "
    "source code and plain text in any common encoding"
)

HEAD = 64 * 1024
"""Bytes looked at: what a file is shows at its beginning."""

_SUFFIXES = {".md": MARKDOWN, ".markdown": MARKDOWN, ".csv": CSV, ".tsv": CSV}
_SOURCE_SUFFIXES = (
    "asm bash bat c cc cfg cjs clj cmake cpp cs css cxx dart erl ex exs f90 fish go gradle graphql groovy h hh hpp hs ini java jl js "
    "jsx kt kts less lua m mjs mk ml pas php pl pm proto ps1 py pyi r rb rs s scala scss sh sql svelte svg swift tex tf toml ts tsx "
    "vb vue xml xsd xsl yaml yml zig zsh"
)
_SUFFIXES |= {f".{suffix}": SOURCE for suffix in _SOURCE_SUFFIXES.split()}

_OFFICE = (
    ("word/document.xml", DOCX),
    ("ppt/presentation.xml", PPTX),
    ("xl/workbook.xml", XLSX),
    ("xl/workbook.bin", UNSUPPORTED),
)
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PACKERS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_HTML_START = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60}):")
_MAIL_HEADERS = frozenset(
    [
        "from",
        "to",
        "cc",
        "subject",
        "date",
        "received",
        "return-path",
        "message-id",
        "mime-version",
        "delivered-to",
        "content-type",
        "reply-to",
    ]
)


def detect_media_type(path: Path, name: str = "") -> MediaType:
    """The kind of the file at ``path``, which its client calls ``name``; an empty file is text."""
    with path.open("rb") as source:
        head = source.read(HEAD)
    whole = len(head) < HEAD
    if b"%PDF-" in head[:1024]:  # readers accept a PDF that begins with up to 1 kB of something else
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_zip(path, head)
    if head.startswith(_OLE_MAGIC):
        return OLE
    if head[257:262] == b"ustar" or (head.startswith(_PACKERS) and _holds_tar(head)):
        return TAR
    codec = encoding(head, whole=whole)
    if codec is None:
        return UNSUPPORTED
    return _flavour(head.decode(codec, "ignore").lstrip("\ufeff"), path, name, whole=whole)


def _kind_of_zip(path: Path, head: bytes) -> MediaType:
    if head[30:58] == b"mimetypeapplication/epub+zip":
        return EPUB
    names = zip_members(path)
    if names is None:  # cut off or broken: its first members may still tell what it was to be
        return next((kind for part, kind in _OFFICE if part.encode() in head), ZIP)
    if "META-INF/container.xml" in names:
        return EPUB
    return next((kind for part, kind in _OFFICE if part in names), ZIP)


def _holds_tar(head: bytes) -> bool:
    """Whether what is compressed here is a tar; only the first block is unpacked."""
    import bz2
    import lzma

    try:
        if head.startswith(b"\x1f\x8b"):
            block = zlib.decompressobj(31).decompress(head, 512)
        elif head.startswith(b"BZh"):
            # A block of bzip2 may be longer than the beginning that is looked at, and then gives nothing yet.
            block = bz2.BZ2Decompressor().decompress(head, 512)
            return block[257:262] == b"ustar" or not block
        else:
            block = lzma.LZMADecompressor(memlimit=128 * 2**20).decompress(head, 512)
    except (zlib.error, OSError, lzma.LZMAError, ValueError):
        return False
    return block[257:262] == b"ustar"


def _flavour(text: str, path: Path, name: str, *, whole: bool) -> MediaType:
    if text.lstrip().startswith("{\\rtf"):
        return RTF
    if _HTML_START.match(text):
        return HTML
    if _is_mail(text):
        return EMAIL
    suffix = PurePosixPath(name.lower()).suffix
    if text.lstrip()[:1] in ("{", "[") and suffix not in _SUFFIXES:
        return _json_kind(text, path, whole=whole)
    return _SUFFIXES.get(suffix, TEXT)


def _is_mail(text: str) -> bool:
    """Whether a block of headers comes first, two of them such as only a mail has."""
    found: set[str] = set()
    for line in text.splitlines()[:200]:
        if line[:1] in (" ", "\t") and found:
            continue
        header = _HEADER.match(line)
        if header is None:
            return not line.strip() and len(found & _MAIL_HEADERS) >= 2
        found.add(header[1].lower())
    return len(found & _MAIL_HEADERS) >= 2


def _json_kind(text: str, path: Path, *, whole: bool) -> MediaType:
    lines = [line for line in text.splitlines() if line.strip()]
    if not whole:
        lines = lines[:-1]
    if len(lines) > 1 and all(_is_json(line) for line in lines[:3]):
        return JSON_LINES
    if whole:
        return JSON if _is_json(text) else TEXT
    with path.open("rb") as source:
        source.seek(-64, 2)
        tail = source.read().rstrip(b"\0\t\r\n ")
    return JSON if tail.endswith((b"}", b"]", b"}\0", b"]\0")) else TEXT


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True
