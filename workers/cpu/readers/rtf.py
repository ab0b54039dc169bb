"""RTF."""

from typing import Any

from workers.cpu.readers.base import InMemoryReader, Rejected, Source, TextBuilder, content_of


class RtfReader(InMemoryReader):
    """Rich text, without its layout; cut where it is long."""

    name = "rtf"

    def __init__(self, source: Source, password: str) -> None:
        from striprtf.striprtf import rtf_to_text

        data = content_of(source)
        if not data.rstrip(b"\0\r\n\t ").endswith(b"}"):
            raise Rejected("unreadable", "rtf: the file is cut off")
        flow = TextBuilder()
        # RTF is ASCII; whatever else stands in it is escaped, and in practice Windows' Western code page where it is not.
        read: Any = rtf_to_text
        flow.add(read(data.decode("cp1252", "replace"), errors="replace"))
        flow.images = b"\\pict" in data
        super().__init__(flow.pages())
