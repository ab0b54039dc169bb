"""Readers on top of LangChain's document loaders: SubRip subtitles and Evernote exports.

Only loaders that read one local file are used: many others open network connections. Notebooks and MHTML have readers of
their own, because NotebookLoader writes the lines of a cell as a Python list and drops cells with results, and MHTMLLoader
loses headings.

The libraries that these loaders import are under GPL-3.0, so they are an extra that an operator chooses to install.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import add_markdown, decode
from workers.cpu.readers.text_builder import TextBuilder

_TAG = re.compile(r"</?[a-z][^<>]*>|\{\\[^{}]*\}", re.IGNORECASE)


class SubtitleReader(InMemoryReader):
    """SubRip subtitles (.srt): the spoken text, without times and formatting."""

    name = "subtitles"

    def __init__(self, source: Source, password: str) -> None:
        path = _path(source)
        from langchain_community.document_loaders.srt import SRTLoader

        with _optional_library():
            try:
                text = " ".join(document.page_content for document in SRTLoader(path).load())
            except UnicodeDecodeError:  # the loader reads UTF-8 only
                text = " ".join(_subtitle_lines(decode(read_source(source))))
        builder = TextBuilder()
        builder.add_text(_TAG.sub("", text))
        super().__init__(builder.build_pages())


class EvernoteReader(InMemoryReader):
    """Evernote exports (.enex): each note begins a page, with its title as a heading. Attachments are not read, which the
    first page reports."""

    name = "evernote"

    def __init__(self, source: Source, password: str) -> None:
        path = _path(source)
        from langchain_community.document_loaders.evernote import EverNoteLoader

        contents: list[Content] = []
        attachments = b"<resource>" in read_source(source)
        with _optional_library():
            for note in EverNoteLoader(path, load_single_document=False).lazy_load():
                builder = TextBuilder()
                builder.add_heading(1, str(note.metadata.get("title") or ""))
                add_markdown(builder, note.page_content)
                if attachments and not contents:
                    builder.skip("attachments")
                contents += builder.build_pages()
        super().__init__(contents or [Content("")])


@contextmanager
def _optional_library() -> Iterator[None]:
    """Reject the file, saying what to install, when the library behind its loader is missing."""
    try:
        yield
    except ImportError as error:
        reason = "Files of this format need libraries that are not installed here: pip install 'enginehouse[gpl-formats]'."
        raise ReadError("unsupported", reason) from error


def _subtitle_lines(text: str) -> Iterator[str]:
    """Lines of a subtitle file that are neither numbers nor times."""
    for line in text.splitlines():
        if line.strip() and not line.strip().isdigit() and "-->" not in line:
            yield line


def _path(source: Source) -> str:
    if not isinstance(source, str):
        raise ReadError("unsupported", "Files of this format cannot be read from inside another file.")
    return source
