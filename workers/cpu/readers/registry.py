"""Reader registry: which readers handle each media type. Child processes import a reader and its libraries before they close
their sandbox, and only the one that they use."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from shared.documents import media_types
from workers.cpu.readers.reader import Reader, Source

_LOADERS = "langchain_community.document_loaders"

# The module and the factory of each reader, which is a class or a function that chooses one, and the libraries it needs.
_READERS: Mapping[str, tuple[str, ...]] = {
    "pypdfium2": ("pdf", "PdfiumReader", "pypdfium2"),
    "pypdf": ("pdf", "PypdfReader", "pypdf"),
    "text": ("text", "TextReader"),
    "markdown": ("text", "MarkdownReader"),
    "csv": ("table", "CsvReader"),
    "xlsx": ("workbook", "XlsxReader"),
    "json": ("structured", "JsonReader"),
    "json lines": ("structured", "JsonLinesReader"),
    "html": ("markup", "HtmlReader"),
    "epub": ("epub", "EpubReader"),
    "docx": ("word", "DocxReader"),
    "pptx": ("slides", "PptxReader"),
    "visio": ("visio", "VisioReader"),
    "binary workbook": ("old_workbook", "BinaryWorkbookReader", "python_calamine"),
    "opendocument": ("opendocument", "OpenDocumentReader"),
    "rtf": ("rtf", "RtfReader"),
    "e-mail": ("mail", "MailReader"),
    "mhtml": ("mail", "MhtmlReader"),
    "outlook": ("outlook", "OutlookReader", "olefile"),
    "evernote": ("langchain_loaders", "EvernoteReader", f"{_LOADERS}.evernote", "html2text"),
    "subtitles": ("langchain_loaders", "SubtitleReader", f"{_LOADERS}.srt", "pysrt"),
    "web vtt": ("web_vtt", "WebVttReader"),
    "notebook": ("notebook", "NotebookReader"),
    "picture": ("picture", "PictureReader", "PIL.Image"),
    "office container": ("container", "open_office_container", "msoffcrypto", "olefile", "python_calamine"),
}

# Their libraries take half of the memory and two thirds of the time of all readers, and few files need them.
_RARE = ("pypdf", "evernote", "subtitles")

READERS_BY_MEDIA_TYPE: Mapping[str, tuple[str, ...]] = {
    media_types.PDF: ("pypdfium2", "pypdf"),
    media_types.TEXT: ("text",),
    media_types.SOURCE: ("text",),
    media_types.MARKDOWN: ("markdown",),
    media_types.CSV: ("csv",),
    media_types.JSON: ("json",),
    media_types.JSON_LINES: ("json lines",),
    media_types.HTML: ("html",),
    media_types.EPUB: ("epub",),
    media_types.DOCX: ("docx",),
    media_types.PPTX: ("pptx",),
    media_types.XLSX: ("xlsx",),
    media_types.VISIO: ("visio",),
    media_types.XLSB: ("binary workbook",),
    media_types.OPENDOCUMENT: ("opendocument",),
    media_types.RTF: ("rtf",),
    media_types.EMAIL: ("e-mail",),
    media_types.MHTML: ("mhtml",),
    media_types.OUTLOOK: ("outlook",),
    media_types.EVERNOTE: ("evernote",),
    media_types.SUBTITLES: ("subtitles",),
    media_types.WEB_VTT: ("web vtt",),
    media_types.NOTEBOOK: ("notebook",),
    media_types.OLE: ("office container",),
    **dict.fromkeys(media_types.PICTURES, ("picture",)),
}
"""Readers for each media type, in the order in which they are tried."""


def import_reader(name: str) -> None:
    """Import a reader and its libraries. The reader itself reports a library that is missing."""
    module, _, *libraries = _READERS[name]
    for imported in (f"workers.cpu.readers.{module}", *libraries):
        with suppress(ImportError):
            importlib.import_module(imported)


def import_common_readers() -> None:
    """Import all readers but those that few files need."""
    for name in _READERS:
        if name not in _RARE:
            import_reader(name)


def open_reader(name: str, source: Source, password: str, *, arranged: bool = True) -> Reader:
    """Open a file with the reader of this name. ``arranged`` is for PDFs, see ``PdfiumReader``. Raises ReadError if the whole file cannot be read, or whatever the library behind the reader raises."""
    module, factory_name, *_ = _READERS[name]
    factory = getattr(importlib.import_module(f"workers.cpu.readers.{module}"), factory_name)
    options = {"arranged": arranged} if name == "pypdfium2" else {}
    return cast(Reader, factory(source, password, **options))
