"""RTF reader: text with its headings, tables, notes, comments, text boxes, headers and footers. A page ends at a page break.

The file is read as tokens, in one pass and without recursion, because the file decides how deep its groups are nested. Text is
bytes in the encoding of its font, which may change from word to word.
"""

# ruff: noqa: RUF001 - texts have quotes and dashes

import codecs
import re
from dataclasses import dataclass, field, replace

from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.symbols import symbol
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|([\r\n\0]+)|([^\\{}\r\n\0]+)", re.DOTALL
)
_CHARSETS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5hkscs", 161: "cp1253", 162: "cp1254",
    163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250", 254: "cp437",
    255: "cp850",
}  # fmt: skip
_SYMBOL_CHARSET = 2
_CODE_PAGES = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850", "ansi": "cp1252"}
_WORDS = {
    "tab": "\t", "line": "\n", "softline": "\n", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "bullet": "•",
    "endash": "–", "emdash": "—", "emspace": " ", "enspace": " ", "qmspace": " ", "nestcell": " ", "nestrow": " ", "column": "\n",
    "softcol": " ", "softpage": " ", "lbr": "\n", "zwnj": "\u200c",
    "zwj": "\u200d",
}  # fmt: skip
_SIGNS = {b"~": " ", b"_": "-", b"\t": "\t"}
_SKIPPED = frozenset(
    [
        "colortbl",
        "pict",
        "fldinst",
        "nonshppict",
        "shprslt",
        "nonesttables",
        "xe",
        "tc",
        "rxe",
        "txe",
        "sn",
        "sv",
        "template",
        "private",
        "filetbl",
        "pntxta",
        "pntxtb",
        "objdata",
        "mctrlPr",
        "mfPr",
        "mrPr",
        "mnaryPr",
        "mdPr",
        "mradPr",
        "msSupPr",
        "msSubPr",
        "msSubSupPr",
        "mboxPr",
        "maccPr",
        "mbarPr",
        "mfuncPr",
        "mlimLowPr",
    ]
)
# Destinations that programs may skip and this reader does not.
_OPTIONAL = frozenset(
    ["shpinst", "shptxt", "shppict", "annotation", "atnauthor", "ud", "moMath", "moMathPara", "do", "dptxbxtext"]
)
_ASIDES = {"footnote": "Footnote", "annotation": "Comment", "shptxt": "", "dptxbxtext": ""}
_MARGINS = frozenset(f"{name}{which}" for name in ("header", "footer") for which in ("", "l", "r", "f"))
_FORM_WORDS = frozenset(["formfield", "fftype", "ffres", "ffdefres", "ffl", "ffdeftext"])
_CHECK_BOX, _DROP_DOWN = 1, 2
_UNDEFINED = 25  # what the file says of a form field that has its default
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)


@dataclass
class _Font:
    codec: str = ""
    name: str = ""
    symbols: bool = False


@dataclass
class _Field:
    """A field, and what the file says of it if it is a form field."""

    kind: int | None = None
    chosen: int | None = None
    default: int = 0
    text: str = ""
    choices: list[str] = field(default_factory=list)
    has_result: bool = False
    has_text: bool = False

    def value(self) -> str:
        """What programs show for a form field without text in the document."""
        chosen = self.default if self.chosen is None else self.chosen
        if self.kind == _CHECK_BOX:
            return "☒ " if chosen else "☐ "
        if self.kind == _DROP_DOWN:
            return self.choices[chosen] if 0 <= chosen < len(self.choices) else ""
        return "" if self.has_result else self.text


@dataclass
class _Group:
    """What the text of a group is. A group inside inherits it."""

    skipped: bool = False
    deleted: bool = False
    kind: str = ""
    font: int | None = None
    raised: bool = False
    fallback: int = 1  # characters after a Unicode one that are for programs that cannot read it
    field: "_Field | None" = None  # the innermost field around it
    opens: str = ""  # the kind of text aside that this group begins, which ends with it


@dataclass
class _Text:
    """A paragraph, and the table that it may be in."""

    pieces: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    asides: list[str] = field(default_factory=list)
    in_table: bool = False
    level: int = 0


class RtfReader(InMemoryReader):
    """Rich text without its layout. Deleted text is left out."""

    name = "rtf"

    def __init__(self, source: Source, password: str) -> None:
        self._builders = [TextBuilder()]
        self._group = _Group()
        self._groups: list[_Group] = []
        self._fonts: dict[int, _Font] = {}
        self._default_font: int | None = None
        self._styles: dict[int, int] = {}
        self._style = 0
        self._codec = "cp1252"
        self._bytes = bytearray()
        self._text = _Text()
        self._outer: list[_Text] = []
        self._margins: dict[str, None] = {}
        self._title: list[str] = []
        self._entry: list[str] = []
        self._author = ""
        self._to_skip = 0
        self._optional = False
        self._read(read_source(source))
        contents = [content for builder in self._builders for content in builder.build_pages()]
        super().__init__(contents, " ".join(_joined(self._title).split()))

    def _read(self, data: bytes) -> None:
        at = 0
        while (token := _TOKEN.match(data, at)) is not None:
            at = token.end()
            word, number, code, sign, brace, newline, run = token.groups()
            if run is not None:
                self._add_bytes(run)
            elif code is not None:
                self._add_bytes(bytes([int(code, 16)]))
            elif word is not None:
                if word == b"bin":
                    at += max(0, int(number or 0))
                    continue
                self._flush_bytes()
                self._do_word(word.decode("ascii"), None if number is None else int(number))
            elif brace == b"{":
                self._flush_bytes()
                self._groups.append(self._group)
                self._group = replace(self._group, opens="", skipped=self._group.skipped or self._group.kind == "upr")
            elif brace == b"}":
                self._flush_bytes()
                self._end_group()
                if not self._groups:
                    break  # programs ignore what comes after the document
            elif sign is not None:
                self._do_sign(sign)
            elif newline is not None:
                continue
        self._flush_bytes()
        if self._groups:
            raise ReadError("unreadable", "rtf: the file is truncated")
        self._end_paragraph()
        self._end_table()
        self._add_asides()
        for text in self._margins:
            self._builders[-1].add_line(text)

    def _do_sign(self, sign: bytes) -> None:
        if sign == b"*":
            self._flush_bytes()
            self._optional = True
        elif sign in (b"\\", b"{", b"}"):
            self._add_bytes(sign)
        elif sign in (b"\n", b"\r"):
            self._flush_bytes()
            self._end_paragraph()
        elif sign in _SIGNS:
            self._flush_bytes()
            self._add("" if self._skips_fallback() else _SIGNS[sign])

    def _do_word(self, word: str, number: int | None) -> None:
        group, optional = self._group, self._optional
        self._optional = False
        skips = word not in ("u", "uc") and self._skips_fallback()
        if group.field is not None and word in _FORM_WORDS:
            self._describe_form_field(group.field, word, number or 0)
        elif optional and word not in _OPTIONAL:
            group.skipped = True
        elif word == "ud":
            group.skipped, group.kind = self._groups[-2].skipped if len(self._groups) > 1 else False, ""
        elif group.skipped:
            self._note_skipped(word)
        elif word in _SKIPPED:
            group.skipped = True
            self._note_skipped(word)
        elif word in _ASIDES or word in _MARGINS:
            group.opens, group.kind = word, ""
            self._outer.append(self._text)
            self._text = _Text()
        elif word in ("fonttbl", "stylesheet", "info", "title", "atnauthor", "upr"):
            group.kind, self._entry = word, []
        elif group.kind == "info":
            group.kind = "other properties"
        elif word == "field":
            group.field = _Field()
        elif word == "fldrslt" and group.field is not None:
            group.field.has_result = True
        elif group.kind == "fonttbl":
            self._define_font(word, number)
        elif group.kind == "stylesheet":
            self._style = number or 0 if word == "s" else self._style
        elif word == "u" and number is not None:
            self._add(chr(number % 0x10000))
            self._to_skip = group.fallback
        elif word in _WORDS:
            self._add(_WORDS[word] if _WORDS[word].isspace() or not skips else "")
        else:
            self._format(word, number)

    def _describe_form_field(self, described: _Field, word: str, number: int) -> None:
        """Form fields are described in the instruction of their field, which is skipped otherwise."""
        group = self._group
        match word:
            case "fftype":
                described.kind = number
            case "ffres":
                described.chosen = None if number == _UNDEFINED else number
            case "ffdefres":
                described.default = number
            case "ffl":
                described.choices.append("")
                group.skipped, group.kind = False, word
            case "ffdeftext":
                group.skipped, group.kind = False, word
            case _:
                group.skipped = True

    def _skips_fallback(self) -> bool:
        """Whether a word or sign is the fallback of the Unicode character before it. Each counts as one character."""
        skips = self._to_skip > 0
        self._to_skip -= skips
        return skips

    def _format(self, word: str, number: int | None) -> None:
        """Words that end paragraphs, cells and pages, or change what the text after them is."""
        text, group = self._text, self._group
        match word:
            case "par" | "sect":
                self._end_paragraph()
            case "page" | "pagebb":
                self._end_paragraph()
                self._end_page()
            case "cell":
                text.cells.append(_joined(text.pieces))
                text.pieces.clear()
            case "row":
                text.rows.append([*text.cells, *filter(None, [_joined(text.pieces).strip()])])
                text.cells, text.in_table = [], False
                text.pieces.clear()
            case "intbl":
                text.in_table = True
            case "pard":
                text.in_table, text.level = False, 0
            case "s":
                text.level = self._styles.get(number or 0, 0)
            case "outlinelevel":
                text.level = (number or 0) + 1 if 0 <= (number or 0) < 9 else 0
            case "f":
                group.font = number
            case "plain":
                group.font, group.deleted, group.raised = self._default_font, False, False
            case "super" | "sub" | "nosupersub":
                group.raised = word == "super" and number != 0
            case "deff":
                self._default_font = group.font = number
            case "uc":
                group.fallback = max(0, min(number if number is not None else 1, 100))
            case "ansicpg":
                self._codec = _known_codec(f"cp{number}") or self._codec
            case "deleted":
                group.deleted = number != 0
            case "object":
                self._builders[-1].skip("embedded objects")
            case _ if word in _CODE_PAGES:
                self._codec = _CODE_PAGES[word]

    def _note_skipped(self, word: str) -> None:
        if word == "pict":
            self._builders[-1].skip("images")

    def _define_font(self, word: str, number: int | None) -> None:
        if word == "f" and number is not None:
            self._group.font = number
            self._fonts[number] = _Font()
        elif word == "fcharset" and self._group.font in self._fonts:
            font = self._fonts[self._group.font]
            font.codec, font.symbols = _CHARSETS.get(number or 0, ""), number == _SYMBOL_CHARSET
        elif word == "cpg" and self._group.font in self._fonts:
            self._fonts[self._group.font].codec = _known_codec(f"cp{number}")

    def _end_group(self) -> None:
        group = self._group
        self._optional = False
        self._to_skip = 0
        if group.opens:
            text = self._finished_text()
            self._text = self._outer.pop()
            self._add_aside(group.opens, text)
        elif group.kind == "stylesheet" and self._entry:
            heading = _HEADING.match("".join(self._entry).strip())
            if heading:
                self._styles[self._style] = int(heading[1])
            self._entry, self._style = [], 0
        elif group.kind == "atnauthor" and self._entry:
            self._author = _joined(self._entry).strip()
            self._entry = []
        if self._groups:
            self._group = self._groups.pop()
            if group.field is not None and group.field is not self._group.field and not group.field.has_text:
                self._add(_joined([group.field.value()]))

    def _finished_text(self) -> str:
        text = self._text
        pieces = [value for row in [*text.rows, text.cells] for value in row]
        return " ".join(" ".join([*pieces, _joined(text.pieces), *text.asides]).split())

    def _add_aside(self, kind: str, text: str) -> None:
        if not text:
            return
        if kind in _MARGINS:
            if not text.isdigit():
                self._margins[text] = None
            return
        label = _ASIDES[kind]
        if kind == "annotation" and self._author:
            label, self._author = f"Comment by {self._author}", ""
        self._text.asides.append(f"{label}: {text}" if label else text)

    def _add_bytes(self, data: bytes) -> None:
        if self._to_skip:
            dropped = min(self._to_skip, len(data))
            self._to_skip -= dropped
            data = data[dropped:]
        if not (self._group.skipped or self._group.deleted):
            self._bytes += data

    def _flush_bytes(self) -> None:
        if not self._bytes:
            return
        data = bytes(self._bytes)
        self._bytes.clear()
        font = self._fonts.get(self._group.font if self._group.font is not None else -1, _Font())
        if self._group.kind == "fonttbl":
            if self._group.font in self._fonts:
                self._fonts[self._group.font].name += data.decode("latin-1").strip("; ")
        elif font.symbols and self._group.kind == "":
            signs = [symbol(font.name, f"{byte:x}") if byte != 32 else " " for byte in data]
            if not all(signs):
                self._builders[-1].skip("symbols of special fonts")
            self._add("".join(signs))
        else:
            self._add(data.decode(font.codec or self._codec, "replace"))

    def _add(self, text: str) -> None:
        if self._group.skipped or self._group.deleted:
            return
        if self._group.kind in ("stylesheet", "atnauthor"):
            self._entry.append(text)
        elif self._group.kind == "title":
            self._title.append(text)
        elif self._group.kind == "ffl" and self._group.field is not None and self._group.field.choices:
            self._group.field.choices[-1] += text
        elif self._group.kind == "ffdeftext" and self._group.field is not None:
            self._group.field.text += text
        elif self._group.kind == "":
            pieces = self._text.pieces
            if self._group.raised and text[:1].isdigit() and pieces and pieces[-1][-1:].isdigit():
                text = f"^{text}"  # 10 to the sixth is not 106
            pieces.append(text)
            if self._group.field is not None and text.strip():
                self._group.field.has_text = True

    def _end_paragraph(self) -> None:
        text = self._text
        if self._group.skipped or self._group.kind:
            return
        if self._outer or text.in_table or text.cells:
            text.pieces.append("\n")
            return
        joined = _joined(text.pieces)
        text.pieces.clear()
        if joined.strip():
            self._end_table()
            if text.level:
                self._builders[-1].add_heading(text.level, joined)
            else:
                self._builders[-1].add_line(joined)
        if not text.rows:
            self._add_asides()

    def _end_table(self) -> None:
        if self._text.cells:
            self._text.rows.append(self._text.cells)
            self._text.cells = []
        if self._text.rows:
            add_table(self._builders[-1], self._text.rows)
            self._text.rows = []
            self._builders[-1].add_text("\n")
            self._add_asides()

    def _add_asides(self) -> None:
        for aside in self._text.asides:
            self._builders[-1].add_line(aside)
        self._text.asides = []

    def _end_page(self) -> None:
        if not self._outer and not self._text.cells:
            self._end_table()
            if self._builders[-1].length:
                self._builders.append(TextBuilder())


def _joined(pieces: list[str]) -> str:
    """Text whose characters beyond the first 65,536 were written as two."""
    text = "".join(pieces)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _known_codec(name: str) -> str:
    name = {"cp936": "gb18030", "cp950": "big5hkscs", "cp10000": "mac_roman", "cp65001": "utf-8", "cp1361": "johab"}.get(
        name, name
    )
    try:
        codecs.lookup(name)
    except LookupError:
        return ""
    return name
