"""Reader registry: which readers handle each media type. A reader is imported only in the child process that uses it."""

import importlib
from collections.abc import Mapping
from typing import cast

from shared.documents import media_types
from workers.cpu.readers.reader import Reader, Source

# The module and the factory of each reader: a class, or a function that chooses one.
_READERS: Mapping[str, tuple[str, str]] = {
    "pypdfium2": ("pdf", "PdfiumReader"),
    "pypdf": ("pdf", "PypdfReader"),
    "text": ("text", "TextReader"),
    "markdown": ("text", "MarkdownReader"),
    "csv": ("table", "CsvReader"),
    "xlsx": ("table", "XlsxReader"),
    "json": ("structured", "JsonReader"),
    "json lines": ("structured", "JsonLinesReader"),
    "html": ("markup", "HtmlReader"),
    "epub": ("epub", "EpubReader"),
    "docx": ("office", "DocxReader"),
    "pptx": ("office", "PptxReader"),
    "rtf": ("rtf", "RtfReader"),
    "e-mail": ("mail", "MailReader"),
    "mhtml": ("mail", "MhtmlReader"),
    "outlook": ("langchain_loaders", "OutlookReader"),
    "evernote": ("langchain_loaders", "EvernoteReader"),
    "subtitles": ("langchain_loaders", "SubtitleReader"),
    "notebook": ("notebook", "NotebookReader"),
    "office container": ("container", "open_office_container"),
}

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
    media_types.RTF: ("rtf",),
    media_types.EMAIL: ("e-mail",),
    media_types.MHTML: ("mhtml",),
    media_types.OUTLOOK: ("outlook",),
    media_types.EVERNOTE: ("evernote",),
    media_types.SUBTITLES: ("subtitles",),
    media_types.NOTEBOOK: ("notebook",),
    media_types.OLE: ("office container",),
}
"""Readers for each media type, in the order in which they are tried."""


def open_reader(name: str, source: Source, password: str) -> Reader:
    """Open a file with the reader of this name. Raises ReadError if the whole file cannot be read, or whatever the library behind the reader raises."""
    module, factory_name = _READERS[name]
    factory = getattr(importlib.import_module(f"workers.cpu.readers.{module}"), factory_name)
    return cast(Reader, factory(source, password))
