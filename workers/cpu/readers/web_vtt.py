"""Reader of WebVTT subtitles (.vtt): the spoken text with the names of the speakers, without times, styles and comments.

LangChain's subtitle loader reads only SubRip: in WebVTT, it loses every cue whose time has no hours.
"""

import html
import re

from workers.cpu.readers.reader import InMemoryReader, Source, read_source
from workers.cpu.readers.text import decode
from workers.cpu.readers.text_builder import TextBuilder, clean_text

_BLANK_LINES = re.compile(r"\n{2,}")
_VOICE = re.compile(r"<v(?:\.[^\s<>]{1,100})? ([^<>]{1,200})>")
_TAG = re.compile(r"</?[a-z0-9:.][^<>]{0,300}>", re.IGNORECASE)


class WebVttReader(InMemoryReader):
    """A file is one page, or several if it is long. A cue is a line."""

    name = "web vtt"

    def __init__(self, source: Source, password: str) -> None:
        builder = TextBuilder()
        speaker = ""
        for block in _BLANK_LINES.split(clean_text(decode(read_source(source)))):
            lines = block.strip("\n").split("\n")
            # An identifier may stand before the time. Blocks without a time are comments, styles and the header.
            time = next((number for number, line in enumerate(lines[:2]) if "-->" in line), None)
            if time is None:
                continue
            text = " ".join(" ".join(lines[time + 1 :]).split())
            voice = _VOICE.match(text)
            name = html.unescape(voice[1]).strip() if voice else ""
            spoken = html.unescape(_TAG.sub("", text)).strip()
            if spoken:
                builder.add_line(f"{name}: {spoken}" if name and name != speaker else spoken)
                speaker = name
        super().__init__(builder.build_pages())
