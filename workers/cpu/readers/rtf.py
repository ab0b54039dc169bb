"""RTF reader."""

from typing import Any

from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text_builder import TextBuilder


class RtfReader(InMemoryReader):
    """Rich text without its layout."""

    name = "rtf"

    def __init__(self, source: Source, password: str) -> None:
        from striprtf.striprtf import rtf_to_text

        data = read_source(source)
        if not data.rstrip(b"\0\r\n\t ").endswith(b"}"):
            raise ReadError("unreadable", "rtf: the file is truncated")
        builder = TextBuilder()
        # RTF is ASCII with escapes. Bytes that some writers leave unescaped are Windows-1252 in practice.
        read: Any = rtf_to_text
        builder.add_text(read(data.decode("cp1252", "replace"), errors="replace"))
        builder.images = b"\\pict" in data
        super().__init__(builder.build_pages())
