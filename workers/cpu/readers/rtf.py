"""RTF."""

from typing import Any

from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, TextBuilder, read_source


class RtfReader(InMemoryReader):
    """Rich text, without its layout; cut where it is long."""

    name = "rtf"

    def __init__(self, source: Source, password: str) -> None:
        from striprtf.striprtf import rtf_to_text

        data = read_source(source)
        if not data.rstrip(b"\0\r\n\t ").endswith(b"}"):
            raise ReadError("unreadable", "rtf: the file is cut off")
        builder = TextBuilder()
        # RTF is ASCII; whatever else stands in it is escaped, and in practice Windows' Western code page where it is not.
        read: Any = rtf_to_text
        builder.add(read(data.decode("cp1252", "replace"), errors="replace"))
        builder.images = b"\\pict" in data
        super().__init__(builder.pages())
