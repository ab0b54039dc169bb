"""HTML, and the chapters of books: what a reader would see, with its headings.

Scripts, styles and navigation are left out. The tree is walked, never called into itself: its depth is the file's choice.
"""

import re
from typing import Any

from lxml import etree, html

from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, TextBuilder, read_source
from workers.cpu.readers.text import decode

_UNSEEN = frozenset(
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
_DECLARED = re.compile(rb"""<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)


class HtmlReader(InMemoryReader):
    """A web page, cut where it is long."""

    name = "html"

    def __init__(self, source: Source, password: str) -> None:
        root = tree(read_source(source))
        builder = TextBuilder()
        if root is not None:
            add_markup(builder, root)
        title = "" if root is None else " ".join((root.findtext(".//title") or "").split())
        super().__init__(builder.pages(), title)


def tree(data: bytes) -> Any:
    """The root element, or None when there is none."""
    text = _decoded(data)
    # A declaration of the encoding is of the bytes, and no longer true of the text.
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.lstrip("\ufeff").replace("\0", ""))
    if not text.strip():
        return None
    parser = html.HTMLParser(huge_tree=True, remove_comments=True, remove_pis=True, recover=True, no_network=True)
    try:
        root = html.document_fromstring(text, parser=parser)
    except etree.ParserError:
        root = None
    except etree.XMLSyntaxError:
        # Nothing is too broken for a parser that recovers; what stops it is the limit on memory.
        raise MemoryError from None
    if any("depth" in str(entry.message) for entry in parser.error_log):
        # What stands deeper is gone from the tree, and a page must not lose text in silence.
        raise ReadError("too_large", "Its elements are nested deeper than can be read, some two thousand levels.")
    return root


def add_markup(builder: TextBuilder, root: Any) -> None:
    """Write what is seen of an element and all that is in it."""
    line: list[str] = []
    heading: int | None = None
    preformatted = 0

    def end_line() -> None:
        text = "".join(line) if preformatted else " ".join("".join(line).split()).strip(" |")
        line.clear()
        if text.strip():
            builder.line(text)

    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        tag = tag.rpartition("}")[2].lower()
        if event == "start":
            if tag in _UNSEEN:
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
                builder.heading(heading or _HEADINGS[tag], "".join(line))
                line.clear()
                heading = None
            elif tag in _BLOCKS:
                end_line()
                if tag in ("p", "table", "ul", "ol", "blockquote", "pre"):
                    builder.add("\n")
            if tag in ("td", "th"):
                line.append(" | ")
            if tag == "pre":
                preformatted -= 1
            if element.tail and element is not root:
                line.append(element.tail)
    end_line()


def chapter(data: bytes) -> list[Content]:
    """One chapter as pages."""
    builder = TextBuilder()
    root = tree(data)
    if root is not None:
        add_markup(builder, root)
    return builder.pages()


def _decoded(data: bytes) -> str:
    declared = _DECLARED.search(data[:4096])
    if declared and not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        try:
            return data.decode(declared[1].decode("ascii"))
        except (LookupError, UnicodeDecodeError):
            pass  # the declaration is wrong; the bytes are asked
    return decode(data)
