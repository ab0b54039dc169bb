"""Media types: what format a file is in, detected from its content. The name only distinguishes text formats.

Detection reads the beginning of a file and, for containers, their directory. It never runs a parser on the file, and its time
is linear in the bytes read, so the API can use it on untrusted files.
"""

import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from shared.documents.text_encoding import detect_unicode, is_plain_text
from shared.documents.zip_listing import list_zip_members, read_zip_member

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
MHTML: MediaType = "application/x-mimearchive"
OUTLOOK: MediaType = "application/vnd.ms-outlook"
EVERNOTE: MediaType = "application/enex+xml"
SUBTITLES: MediaType = "application/x-subrip"
WEB_VTT: MediaType = "text/vtt"
NOTEBOOK: MediaType = "application/x-ipynb+json"
EPUB: MediaType = "application/epub+zip"
DOCX: MediaType = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX: MediaType = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX: MediaType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
VISIO: MediaType = "application/vnd.ms-visio.drawing"
XLSB: MediaType = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
OPENDOCUMENT: MediaType = "application/vnd.oasis.opendocument"
"""Texts, spreadsheets, presentations and drawings alike."""
OLE: MediaType = "application/x-ole-storage"
"""OLE container: Word, Excel and PowerPoint files of before 2007, and newer ones that are encrypted."""
ZIP: MediaType = "application/zip"
TAR: MediaType = "application/x-tar"
PNG: MediaType = "image/png"
JPEG: MediaType = "image/jpeg"
TIFF: MediaType = "image/tiff"
WEBP: MediaType = "image/webp"
BMP: MediaType = "image/bmp"
GIF: MediaType = "image/gif"
UNSUPPORTED: MediaType = "application/octet-stream"

PICTURES = (PNG, JPEG, TIFF, WEBP, BMP, GIF)
"""Types whose text is read by OCR."""

WITH_PICTURES = (DOCX, PPTX, XLSX, VISIO, OPENDOCUMENT, OLE, EMAIL, OUTLOOK)
"""Types besides PDF in which pictures are found that OCR can read."""

ARCHIVES = (ZIP, TAR)
"""Types that are unpacked on upload; each member becomes a document."""

SUPPORTED = (
    "PDF, Word (.docx), PowerPoint (.pptx), Excel (.xlsx, .xlsb, .xls), Visio (.vsdx), OpenDocument (.odt, .ods, .odp), HTML, MHTML, EPUB, RTF, e-mail "
    "(.eml), Outlook (.msg), Evernote (.enex), Jupyter notebooks, subtitles (.srt, .vtt), pictures (PNG, JPEG, TIFF, WebP, BMP, GIF), CSV, JSON, "
    "JSON Lines, Markdown, source code and plain text in any common encoding"
)

HEAD = 64 * 1024
"""Bytes read from the beginning of a file to detect its type."""

_SUFFIXES = {".md": MARKDOWN, ".markdown": MARKDOWN, ".csv": CSV, ".tsv": CSV, ".tab": CSV}
_HTML_SUFFIXES = (".html", ".htm", ".xhtml", ".shtml")
_JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
_MAIL_SUFFIXES = (".eml", ".mht", ".mhtml", ".mim", ".nws")
_SOURCE_SUFFIXES = (
    "asm bash bat c cc cfg cjs clj cmake cpp cs css cxx dart erl ex exs f90 fish go gradle graphql groovy h hh hpp hs ini java jl js "
    "jsx kt kts less lua m mjs mk ml pas php pl pm proto ps1 py pyi r rb rs s scala scss sh sql svelte svg swift tex tf toml ts tsx "
    "vb vue xml xsd xsl yaml yml zig zsh"
)
_SUFFIXES |= {f".{suffix}": SOURCE for suffix in _SOURCE_SUFFIXES.split()}

# The main part of an Office file may have any name. Its content type says what it is, also for templates and files with macros.
_OFFICE_CONTENT = re.compile(
    rb"application/vnd\.(?:openxmlformats-officedocument\.|ms-)(?:(?P<word>word)|(?P<deck>p)|(?P<sheet>spread|excel))[a-z]*\.[A-Za-z.]{1,60}main\+xml"
)
_VISIO_CONTENT = re.compile(rb"application/vnd\.ms-visio\.(?:drawing|template)\.(?:macroEnabled\.)?main\+xml")
_BINARY_WORKBOOK = b"application/vnd.ms-excel.sheet.binary"
_OFFICE_FOLDERS = (
    ("xl/workbook.bin", XLSB),
    ("word/document", DOCX),
    ("ppt/presentation", PPTX),
    ("xl/workbook", XLSX),
    ("visio/document", VISIO),
)
_MIMETYPES = ((b"application/vnd.oasis.opendocument.", OPENDOCUMENT), (b"application/epub+zip", EPUB))
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OUTLOOK_STREAM = "__properties_version1.0".encode("utf-16-le")
_PICTURE_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_HTML_START = re.compile(r"<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_EVERNOTE_START = re.compile(r"<(!DOCTYPE\s+)?en-export\b")
_SUBTITLE_START = re.compile(r"\s*\d+[ \t]*\r?\n\d{1,2}:\d{2}:\d{2}[,.]\d{1,3}[ \t]*-->[ \t]*\d{1,2}:\d{2}:\d{2}")
_WEB_VTT_START = re.compile(r"WEBVTT(?:[ \t][^\r\n]*)?(?:\r|\n|\Z)")
_NOTEBOOK_START = re.compile(r'\s*\{\s*"(cells|metadata|nbformat|nbformat_minor)"\s*:')
_NOTEBOOK_FORMAT = re.compile(rb'"nbformat"\s*:\s*4\b')
_SPACE = re.compile(r"\s+")
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60}):")
_MAIL_HEADERS = frozenset(["from", "to", "cc", "subject", "date", "reply-to", "content-type"])
# Only programs write these. A memo or a YAML file may have all the others.
_TRANSPORT_HEADERS = frozenset(
    ["received", "return-path", "message-id", "mime-version", "delivered-to", "dkim-signature", "content-transfer-encoding"]
)
# Without tags, a page may still have character references.
_HTML_SIGN = re.compile(r"<[!?/A-Za-z]|&(?:[A-Za-z]{2,8}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_HTML_ELEMENT = re.compile(
    r"<(meta|title|link|style|script|base|h[1-6]|p|div|table|ul|ol|dl|article|section|main|header|nav|center|font|span|br|hr|img|a)\b[^<>]*>",
    re.IGNORECASE,
)


def detect_media_type(path: Path, name: str = "") -> MediaType:
    """Detect the media type of the file at ``path``. ``name`` is the client's file name. An empty file is text."""
    with path.open("rb") as source:
        head = source.read(HEAD)
    whole = len(head) < HEAD
    if b"%PDF-" in head[:1024]:  # PDF readers accept up to 1 kB of other bytes at the beginning
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_media_type(path, head)
    if head.startswith(_OLE_MAGIC):
        return OUTLOOK if _is_outlook(path, head) else OLE
    if head.lstrip().startswith(b"{\\rtf"):  # it may hold binary data
        return RTF
    if picture := _picture_media_type(head):
        return picture
    if head[257:262] == b"ustar" or (head.startswith(_COMPRESSED) and _holds_tar(head)):
        return TAR
    # Guessing a legacy encoding is slow, so that is left to the reader. The syntax that tells text formats apart is ASCII.
    codec = detect_unicode(head, whole=whole) or ("latin-1" if is_plain_text(head) else None)
    if codec is None:
        return UNSUPPORTED
    return _text_media_type(head.decode(codec, "ignore").lstrip("\ufeff"), path, name, whole=whole)


def _picture_media_type(head: bytes) -> MediaType | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    # "BM" may begin a text. The size of the second header, at byte 14, is one of a few.
    if (
        head[:2] == b"BM"
        and head[6:10] == b"\0\0\0\0"
        and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    ):
        return BMP
    return next((media_type for magic, media_type in _PICTURE_MAGIC if head.startswith(magic)), None)


def _zip_media_type(path: Path, head: bytes) -> MediaType:
    if head[30:38] == b"mimetype":  # first and not compressed, so that the type can be read without unpacking
        return next((media_type for name, media_type in _MIMETYPES if head.startswith(name, 38)), UNSUPPORTED)
    listed = list_zip_members(path)
    if listed is None:  # truncated or damaged: the first members may still show what it was
        return next((media_type for part, media_type in _OFFICE_FOLDERS if part.encode() in head), ZIP)
    members = {name.replace("\\", "/").lstrip("/").lower(): offset for name, offset in listed.items()}
    if "meta-inf/container.xml" in members:
        return EPUB
    if {"content.xml", "meta-inf/manifest.xml"} <= members.keys():
        return OPENDOCUMENT
    if "[content_types].xml" in members:
        return _office_media_type(read_zip_member(path, members["[content_types].xml"]), members)
    if "index/document.iwa" in members:  # Pages, Numbers or Keynote
        return UNSUPPORTED
    return next((media_type for part, media_type in _OFFICE_FOLDERS if f"{part}.xml" in members or part in members), ZIP)


def _office_media_type(content_types: bytes, members: Iterable[str]) -> MediaType:
    """The type of a package by the content types that it declares or, if that part is damaged, by the names of its parts."""
    if _BINARY_WORKBOOK in content_types:
        return XLSB
    if main := _OFFICE_CONTENT.search(content_types):
        return DOCX if main["word"] else PPTX if main["deck"] else XLSX
    if _VISIO_CONTENT.search(content_types):
        return VISIO
    names = "\n".join(members)
    return next((media_type for part, media_type in _OFFICE_FOLDERS if part in names), UNSUPPORTED)


def _holds_tar(head: bytes) -> bool:
    """Whether the compressed file is a tar. Only the first block is unpacked."""
    import bz2
    import lzma

    try:
        if head.startswith(b"\x1f\x8b"):
            block = zlib.decompressobj(31).decompress(head, 512)
        elif head.startswith(b"BZh"):
            # A bzip2 block may be longer than the bytes read here, and then yields nothing yet.
            block = bz2.BZ2Decompressor().decompress(head, 512)
            return block[257:262] == b"ustar" or not block
        else:
            block = lzma.LZMADecompressor(memlimit=128 * 2**20).decompress(head, 512)
    except (zlib.error, OSError, lzma.LZMAError, ValueError):
        return False
    return block[257:262] == b"ustar"


def _text_media_type(text: str, path: Path, name: str, *, whole: bool) -> MediaType:
    suffix = PurePosixPath(name.lower()).suffix
    root = _root_element(text)
    if _HTML_START.match(text, root):
        return HTML
    if _EVERNOTE_START.match(text, root):
        return EVERNOTE
    if _SUBTITLE_START.match(text):
        return SUBTITLES
    if _WEB_VTT_START.match(text):
        return WEB_VTT
    if suffix in _HTML_SUFFIXES and _HTML_SIGN.search(text):
        return HTML
    headers = _mail_headers(text, suffix)
    if headers is not None:
        web_page = "snapshot-content-location" in headers or (suffix in (".mht", ".mhtml") and "from" in headers)
        return MHTML if web_page else EMAIL
    if _NOTEBOOK_START.match(text) and _has_notebook_format(path):
        return NOTEBOOK
    if suffix in _JSON_LINES_SUFFIXES:
        return JSON_LINES
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if text.lstrip()[:1] in ("{", "["):
        return _json_media_type(text, path, whole=whole)
    if suffix != ".txt" and _HTML_ELEMENT.match(text, root) and "</" in text:
        return HTML
    return TEXT


def _root_element(text: str) -> int:
    """Where the first element of markup may begin: after white space, an XML declaration and comments."""
    start = _skip_space(text, 0)
    for opening, closing in (("<?xml", ">"), ("<!--", "-->")):
        while text.startswith(opening, start):
            end = text.find(closing, start)
            if end < 0:
                return start
            start = _skip_space(text, end + len(closing))
    return start


def _skip_space(text: str, start: int) -> int:
    space = _SPACE.match(text, start)
    return space.end() if space else start


def _is_outlook(path: Path, head: bytes) -> bool:
    """Whether the directory of an OLE container has the stream that every Outlook message has. The header says where the
    directory begins; its first 64 kB are read."""
    sector_shift, directory_sector = int.from_bytes(head[30:32], "little"), int.from_bytes(head[48:52], "little")
    if sector_shift not in (9, 12):
        return False
    with path.open("rb") as source:
        source.seek((directory_sector + 1) << sector_shift)
        return _OUTLOOK_STREAM in source.read(HEAD)


def _has_notebook_format(path: Path) -> bool:
    """Whether a JSON file names notebook format 4 at its beginning or, as Jupyter writes it, at its end."""
    with path.open("rb") as source:
        if _NOTEBOOK_FORMAT.search(source.read(1024)):
            return True
        source.seek(max(0, source.seek(0, 2) - 1024))
        return _NOTEBOOK_FORMAT.search(source.read()) is not None


def _mail_headers(text: str, suffix: str) -> set[str] | None:
    """Names of the headers at the beginning, or None if this is not e-mail.

    Any text may begin with lines such as ``From:``. So two typical headers are enough only in a file that is named as e-mail; in
    others, one of them must be of a kind that only programs write.
    """
    if suffix in _SUFFIXES or suffix in _HTML_SUFFIXES:
        return None
    lines = text[:HEAD].replace("\r\n", "\n").replace("\r", "\n").split("\n")[:400]
    if lines[0].startswith("From ") and suffix not in ("", ".txt"):
        del lines[0]  # the line that parts the messages of a mailbox
    found: set[str] = set()
    for line in lines:
        if line[:1] in (" ", "\t") and found:
            continue
        header = _HEADER.match(line)
        if header is None:
            if line.strip():
                return None
            break
        found.add(header[1].lower())
    transport, typical = found & _TRANSPORT_HEADERS, found & _MAIL_HEADERS
    needed = suffix in _MAIL_SUFFIXES or transport
    return found if needed and len(transport | typical) >= 2 else None


def _json_media_type(text: str, path: Path, *, whole: bool) -> MediaType:
    # Only a newline ends a line: strings may contain other characters that end lines elsewhere, such as U+2028.
    lines = [line for line in text.split("\n") if line.strip()]
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
