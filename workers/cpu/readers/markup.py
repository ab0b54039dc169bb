"""HTML reader, also for the chapters of e-books: the text with its headings, and with that of buttons, lists and formulas.

Scripts and styles are left out; navigation and embedded media are reported. The tree is walked without recursion, because the
file decides its depth.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from lxml import etree, html

from shared.documents.media_types import HEAD
from workers.cpu.readers.charset import decode_declared, repair_controls
from workers.cpu.readers.picture import MIN_SIDE
from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text_builder import TextBuilder

_INVISIBLE = frozenset(["script", "style", "title", "meta", "link", "base", "annotation", "annotation-xml", "desc", "metadata"])
# What is left out and said to be.
_SKIPPED = {"nav": "navigation", "iframe": "embedded pages", "frame": "embedded pages", "canvas": "drawings"}
_SKIPPED |= dict.fromkeys(["video", "audio", "embed"], "media")
# They, and elements that pages define, part the text without ending the line, since they may be inside a heading.
_PARTED = frozenset(["button", "option", "optgroup", "select", "textarea", "input", "label", "output", "text", "mtr", "mtd"])
_UNSEEN_INPUTS = frozenset(["hidden", "password", "checkbox", "radio", "image", "file"])
# Elements of MathML whose children after the first are marked, as in x^2.
_MARKS = {"msup": "^", "mover": "^", "msub": "_", "munder": "_", "mfrac": "/", "mroot": "√"}
_PLACED = frozenset(["x", "y", "dx", "dy"])
_MAX_HEADING = 300
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
        "dir",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hgroup",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "menu",
        "noframes",
        "noscript",
        "search",
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
_SHOWN_AS_BLOCK = re.compile(r"display\s{0,9}:\s{0,9}(?:block|flex|grid|table|list-item)\b", re.IGNORECASE)
_END_OF_PAGE = re.compile(r"</(?:body|html)\s{0,9}>", re.IGNORECASE)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SELF_CLOSING = re.compile(
    r"<(a|b|i|p|div|em|span|title|script|style|td|th|li|strong|h[1-6]|iframe|textarea|section)(\s[^<>]*)?/>"
)
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


def parse_html(data: bytes, *, label: str = "", xhtml: bool = False) -> Any:
    """The root element, or None for an empty document. ``label`` names the encoding if it is known from elsewhere, and
    ``xhtml`` says that any element may close itself."""
    text = decode_declared(data, _declared_label(data) or label)
    if xhtml:
        text = _SELF_CLOSING.sub(r"<\1\2></\1>", text)
    # The declared encoding applies to the bytes; the text is decoded already.
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.lstrip("\ufeff").replace("\0", ""))
    # The parser drops what follows the end of a page, and files that were put together have several ends.
    text = _END_OF_PAGE.sub("", text)
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


def add_markup(builder: TextBuilder, root: Any, pictures: Mapping[str, str] | None = None) -> None:
    """Add the visible text of an element and its descendants. ``pictures`` are those that OCR can read, by their addresses in the page,
    and "" for icons."""
    line: list[str] = []
    in_heading = False
    preformatted = 0
    lists: list[int | None] = []  # the next number of each list that is open, or None for one of bullets

    def end_line() -> None:
        text = repair_controls("".join(line))
        if in_heading and len(text) < _MAX_HEADING:
            line.append(" ")
            return
        text = text if preformatted else " ".join(text.split()).strip(" |")
        line.clear()
        if text.strip():
            builder.add_line(text)

    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        tag = tag.rpartition("}")[2].lower()
        if event == "start":
            if tag in _INVISIBLE or (tag == "template" and element.get("shadowrootmode") is None):
                walk.skip_subtree()
                continue
            if tag in _SKIPPED:
                builder.skip(_SKIPPED[tag])
                walk.skip_subtree()
                continue
            if tag in _BLOCKS or tag in _HEADINGS or _is_block(element):
                end_line()
            if tag in _HEADINGS:
                in_heading = True
            elif tag == "pre":
                preformatted += 1
            elif tag == "li":
                line.append(_list_mark(lists, element))
            elif tag in ("ol", "ul", "menu", "dir"):
                lists.append(_first_number(element) if tag == "ol" else None)
            elif tag in ("img", "image"):
                _add_image(builder, line, element, pictures or {})
            elif tag in _PARTED or "-" in tag or (tag == "tspan" and not _PLACED.isdisjoint(element.keys())):
                line.append(" ")
                if tag == "optgroup":
                    line.append(f"{element.get('label') or ''} ")
                if tag == "input" and (element.get("type") or "text").lower() not in _UNSEEN_INPUTS:
                    line.append(element.get("value") or "")
            elif tag == "rt":
                line.append("(" if _tag_before(element) != "rp" else "")
            elif tag == "sup" and "".join(line[-1:])[-1:].isdigit() and (element.text or "").lstrip("-\u2212")[:1].isdigit():
                line.append("^")
            mark = _mathml_mark(element)
            if mark:
                line.append(mark)
            if element.text and tag:
                line.append(element.text)
        else:
            if tag in _HEADINGS:
                in_heading = False
                builder.add_heading(_HEADINGS[tag], repair_controls("".join(line)))
                line.clear()
            elif tag in _BLOCKS or _is_block(element):
                end_line()
                if tag in ("ol", "ul", "menu", "dir") and lists:
                    lists.pop()
                if tag in ("p", "table", "ul", "ol", "blockquote", "pre"):
                    builder.add_text("\n")
            if tag in ("td", "th"):
                line.append(" | ")
            elif tag == "pre":
                preformatted -= 1
            elif tag in _PARTED or "-" in tag:
                line.append(" ")
            elif tag == "rt":
                line.append(")" if _tag_before(element) != "rp" else "")
            elif tag == "mrow" and _mathml_mark(element):
                line.append(")")
            if element.tail and element is not root:
                line.append(element.tail)
    in_heading = False
    end_line()


def _is_block(element: Any) -> bool:
    """Whether an element of a line, such as a span, is shown on lines of its own."""
    style = element.get("style")
    return bool(style) and _SHOWN_AS_BLOCK.search(style) is not None


def _first_number(numbered: Any) -> int:
    start = (numbered.get("start") or "1").strip()
    return int(start) if start.isascii() and start.isdigit() and len(start) < 6 else 1


def _list_mark(lists: list[int | None], item: Any) -> str:
    """The number of an item of a list, or a dash."""
    number = lists[-1] if lists else None
    if number is None:
        return "- "
    value = (item.get("value") or "").strip()
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 6 else number
    lists[-1] = number + 1
    return f"{number}. "


def _add_image(builder: TextBuilder, line: list[str], image: Any, pictures: Mapping[str, str]) -> None:
    """The text that stands for an image, if there is one. One that is only decoration says so by an empty text."""
    alternative = image.get("alt")
    if alternative and alternative.strip():
        line.append(f" {alternative} ")
    picture = pictures.get(unquote(image.get("src") or ""))
    if picture:
        builder.add_picture(picture)
    elif picture is None and not _is_shown_small(image) and (alternative is None or alternative.strip()):
        builder.skip("images")


def _is_shown_small(image: Any) -> bool:
    """Whether a side of an image is shown too short for a word, as that of a line or of one that only counts readers."""
    sides = ((image.get(side) or "").strip().removesuffix("px") for side in ("width", "height"))
    return any(side.isascii() and side.isdigit() and len(side) < 9 and int(side) < MIN_SIDE for side in sides)


def _tag_before(element: Any) -> str:
    before = element.getprevious()
    return str(before.tag).rpartition("}")[2].lower() if before is not None else ""


def _mathml_mark(element: Any) -> str:
    """What parts a piece of a formula from the one before it: the power in x^2, the denominator of a/b."""
    parent = element.getparent()
    if parent is None or not isinstance(parent.tag, str):
        return ""
    parent_tag = parent.tag.rpartition("}")[2]
    if parent_tag in ("msubsup", "munderover"):
        before = element.getprevious()
        mark = "" if before is None else "_" if before.getprevious() is None else "^"
    else:
        mark = _MARKS.get(parent_tag, "") if element.getprevious() is not None else ""
    if not mark:
        return "(" if parent_tag == "mfrac" and str(element.tag).endswith("mrow") else ""
    return mark + ("(" if str(element.tag).endswith("mrow") else "")


def read_chapter(data: bytes) -> list[Content]:
    """The pages of one chapter of an e-book, which is XHTML and should be XML."""
    builder = TextBuilder()
    try:
        root = etree.fromstring(
            data, etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
        )
        if any(True for _ in root.iter(etree.Entity)):
            root = parse_html(data, xhtml=True)  # names such as &nbsp; are defined outside the file
    except etree.XMLSyntaxError:
        root = parse_html(data, xhtml=True)
    if root is not None:
        add_markup(builder, root)
    return builder.build_pages()


def _declared_label(data: bytes) -> str:
    """The encoding that a page names near its beginning, outside of comments."""
    head, pieces, start = data[:HEAD], [], 0
    while (opening := head.find(b"<!--", start)) >= 0:
        pieces.append(head[start:opening])
        closing = head.find(b"-->", opening)
        start = len(head) if closing < 0 else closing + 3
    declared = _DECLARED.search(b"".join([*pieces, head[start:]]))
    return declared[1].decode("ascii") if declared else ""
