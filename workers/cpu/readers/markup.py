"""HTML reader, also for the chapters of e-books: the visible text with its headings.

Scripts, styles and navigation are skipped. The tree is walked without recursion, because the file decides its depth.
"""

import re
from typing import Any

from lxml import etree, html

from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import decode
from workers.cpu.readers.text_builder import TextBuilder

_INVISIBLE = frozenset(
    ["script", "style", "template", "noscript", "svg", "math", "head", "nav", "iframe", "object", "canvas", "select", "button"]
)
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
        "br",
    ]
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_DECLARED = re.compile(rb"""<(?:meta[^<>]+charset|\?xml[^<>]+encoding)\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)


class HtmlReader(InMemoryReader):
    """A web page."""

    name = "html"

    def __init__(self, source: Source, password: str) -> None:
        root = parse_html(read_source(source))
        builder = TextBuilder()
        if root is not None:
            add_markup(builder, root)
        title = "" if root is None else " ".join((root.findtext(".//title") or "").split())
        super().__init__(builder.build_pages(), title)


def parse_html(data: bytes) -> Any:
    """The root element, or None for an empty document."""
    text = _decoded(data)
    # The declared encoding applies to the bytes; the text is decoded already.
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.lstrip("\ufeff").replace("\0", ""))
    if not text.strip():
        return None
    parser = html.HTMLParser(huge_tree=True, remove_comments=True, remove_pis=True, recover=True, no_network=True)
    try:
        root = html.document_fromstring(text, parser=parser)
    except etree.ParserError:
        root = None
    except etree.XMLSyntaxError:
        # A recovering parser accepts any broken markup; only the memory limit stops it.
        raise MemoryError from None
    if any("depth" in str(entry.message) for entry in parser.error_log):
        # The parser drops deeper elements, and a page must not lose text silently.
        raise ReadError("too_large", "The HTML is nested more than about two thousand levels deep.")
    return root


def add_markup(builder: TextBuilder, root: Any) -> None:
    """Add the visible text of an element and its descendants."""
    line: list[str] = []
    heading: int | None = None
    preformatted = 0

    def end_line() -> None:
        text = "".join(line) if preformatted else " ".join("".join(line).split()).strip(" |")
        line.clear()
        if text.strip():
            builder.add_line(text)

    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        tag = tag.rpartition("}")[2].lower()
        if event == "start":
            if tag in _INVISIBLE:
                walk.skip_subtree()
                continue
            if tag in _BLOCKS or tag in _HEADINGS:
                end_line()
            if tag in _HEADINGS:
                heading = _HEADINGS[tag]
            if tag == "pre":
                preformatted += 1
            if tag == "li":
                line.append("- ")
            if tag in ("img", "image", "picture"):
                builder.images = True
            if element.text and tag:
                line.append(element.text)
        else:
            if tag in _HEADINGS:
                builder.add_heading(heading or _HEADINGS[tag], "".join(line))
                line.clear()
                heading = None
            elif tag in _BLOCKS:
                end_line()
                if tag in ("p", "table", "ul", "ol", "blockquote", "pre"):
                    builder.add_text("\n")
            if tag in ("td", "th"):
                line.append(" | ")
            if tag == "pre":
                preformatted -= 1
            if element.tail and element is not root:
                line.append(element.tail)
    end_line()


def read_chapter(data: bytes) -> list[Content]:
    """The pages of one chapter."""
    builder = TextBuilder()
    root = parse_html(data)
    if root is not None:
        add_markup(builder, root)
    return builder.build_pages()


def _decoded(data: bytes) -> str:
    declared = _DECLARED.search(data[:4096])
    return decode(data, declared[1].decode("ascii") if declared else None)
