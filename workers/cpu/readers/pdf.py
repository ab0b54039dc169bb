"""PDF readers: pdfium first, and pypdf for files or pages that pdfium cannot read.

The text of a page is followed by what is kept beside it: comments, and what was typed into a form. What cannot be read is reported:
files inside the PDF, letters of fonts that do not say which letters they are, and pages that are pictures of text.
"""

import ctypes
import mmap
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from workers.cpu.readers.characters import TrackedText, read_characters
from workers.cpu.readers.outline import place_headings, read_outline
from workers.cpu.readers.page_arrangement import arrange_page, may_have_cells
from workers.cpu.readers.reader import NEEDS_OCR, ONLY_NOTES, Content, Source, password_error
from workers.cpu.readers.text_builder import clean_text

MAX_ANNOTATIONS = 2000
"""Comments and form fields that are read of one page."""

MAX_VALUE_CHARACTERS = 20_000

STAMP_CHARACTERS, SCAN_SHARE = 80, 0.7
"""A page with at most so many characters over pictures that cover this share of it is a scan with a stamp."""

OUTLINE_SEGMENTS = 100
"""A page without text whose drawings have more segments than this shows something, such as text drawn as curves."""

_MAX_OBJECTS = 10_000
_SAMPLED_CHARACTERS, _COUNTED_CHARACTERS, _JUDGED_CHARACTERS = 16, 120, 800
_MIN_UNMAPPED_SHARE, _MOSTLY_UNMAPPED_SHARE = 0.1, 0.4
_UNMAPPED = "has letters in fonts that do not say which letters they are; some of the text may be wrong"
# Annotations that may hold text; a name with an escape may be one of them.
_NOTE = re.compile(
    rb"/Subtype\s{0,9}/(?:Text|FreeText|Line|Square|Circle|Poly|Highlight|Underline|Squiggly|StrikeOut|Stamp|Caret|Ink|FileAtt|Widget"
    rb"|Redact|Sound|Movie|Screen|RichMedia|3D|Print|Trap|Water|[^\s/<>()\[\]]{0,20}#)"
)
_MAX_PACKED_BYTES, _MAX_UNPACKED_BYTES = 2**20, 256 * 2**20
_WORD = re.compile(r"[^\W_]+")
BREAKING_HYPHEN = re.compile(r"\ufffe(?:\r\n)?(?=(\S))")
_VOWELS = frozenset("aeiouyAEIOUY")
_GLYPH_NAMES = re.compile(r"/[A-Za-z]{1,6}\d{1,5}")


def is_kept_hyphen(broken: re.Match[str]) -> bool:
    """Whether a hyphen at the end of a line belongs to the text, as in ABC-4711. Before a small letter it only breaks a word, and removing
    it joins the word."""
    return not broken[1].islower()


class PdfiumReader:
    """First choice: fast, and accurate about spaces. If ``arranged``, tables become Markdown rows, and columns follow each other."""

    name = "pypdfium2"

    def __init__(self, source: Source, password: str, *, arranged: bool = True) -> None:
        import pypdfium2

        self._arranged = arranged
        self._raw: Any = pypdfium2.raw
        try:
            self._document = pypdfium2.PdfDocument(source, password=password or None)
        except pypdfium2.PdfiumError as error:
            if error.err_code == self._raw.FPDF_ERR_PASSWORD:
                raise password_error(password) from error
            raise
        self.pages = len(self._document)
        self.title = str(self._document.get_metadata_value("Title"))
        self._outline = read_outline(self._document)
        self._only_links = isinstance(source, str) and _has_only_links(source)
        self._form_type: int = self._document.get_formtype()
        if self._form_type in (self._raw.FORMTYPE_ACRO_FORM, self._raw.FORMTYPE_XFA_FOREGROUND):
            with suppress(pypdfium2.PdfiumError):
                self._document.init_forms()

    def read_page(self, number: int) -> Content:
        # Called directly, because the library's objects for pages cost a tenth of the time.
        page = self._raw.FPDF_LoadPage(self._document, number - 1)
        if not page:
            raise ValueError("pdfium cannot load the page")
        form = self._document.formenv
        if form is not None:
            self._raw.FORM_OnAfterLoadPage(page, form)
        try:
            text, unmapped = self._text(page)
            faults = list(self._file_faults()) if number == 1 else []
            images = False
            if unmapped >= _MOSTLY_UNMAPPED_SHARE and not _is_readable(text[:_JUDGED_CHARACTERS]):
                text, images = "", True
            elif unmapped >= _MIN_UNMAPPED_SHARE:
                faults.append(_UNMAPPED)
            if not images and len(text) <= 2 * STAMP_CHARACTERS:
                visible = " ".join(clean_text(text).split())
                share, shows_something = self._pictures(page)
                images = not visible and shows_something
                if visible and len(visible) <= STAMP_CHARACTERS and share >= SCAN_SHARE:
                    faults.insert(0, NEEDS_OCR)
            notes, attached = ([], []) if self._only_links else self._annotations(page)
            if notes and images:
                faults.append(ONLY_NOTES)
            if notes:
                text = "\r\n".join([*filter(None, [text.rstrip()]), *notes])
            faults += attached
            if number == 1 and self._form_type == self._raw.FORMTYPE_XFA_FULL:
                values = self._xfa_values()
                text = "\r\n".join([text, *values])
                faults.append("is an XFA form, of which only the values that were typed in can be read" if values else _XFA_FAULT)
            headings = []
            if entries := self._outline.get(number):
                text = clean_text(text)  # which the headings refer to
                headings = place_headings(entries, text)
            return Content(text, images, headings, fault="; ".join(faults))
        finally:
            if form is not None:
                self._raw.FORM_OnBeforeClosePage(page, form)
            self._raw.FPDF_ClosePage(page)

    def _text(self, page: Any) -> tuple[str, float]:
        """The text of a page, and the share of its characters whose font does not say which characters they are."""
        text_page = self._raw.FPDFText_LoadPage(page)
        if not text_page:
            raise ValueError("pdfium cannot read the text of the page")
        try:
            count = self._raw.FPDFText_CountChars(text_page)
            buffer = (ctypes.c_ushort * (count + 1))()
            written = self._raw.FPDFText_GetText(text_page, 0, count, buffer) if count > 0 else 1
            text = bytes(memoryview(buffer)[: written - 1]).decode("utf-16-le", "ignore")
            if self._arranged and may_have_cells(self._raw, text_page, text):
                is_plain = len(text) == count
                original = TrackedText(text, range(count)) if is_plain else read_characters(self._raw, text_page)
                arranged = arrange_page(self._raw, page, text_page, original)
                text = text if arranged is None else arranged.text
            # pdfium writes U+FFFE for a hyphen between letters or digits at the end of a line.
            text = BREAKING_HYPHEN.sub(lambda broken: "-" if is_kept_hyphen(broken) else "", text)
            return text.replace("\ufffe", ""), self._unmapped_share(text_page, count)
        finally:
            self._raw.FPDFText_ClosePage(text_page)

    def _unmapped_share(self, text_page: Any, count: int) -> float:
        """Few characters are looked at, unless some of them are bad."""
        share = 0.0
        for limit in (_SAMPLED_CHARACTERS, _COUNTED_CHARACTERS):
            looked_at = range(0, count, max(1, count // limit))
            bad = sum(self._raw.FPDFText_HasUnicodeMapError(text_page, index) == 1 for index in looked_at)
            share = bad / max(1, len(looked_at))
            if share < _MIN_UNMAPPED_SHARE / 2:
                break
        return share

    def _pictures(self, page: Any) -> tuple[float, bool]:
        """The share of the page that pictures cover, and whether it shows pictures or elaborate drawings at all."""
        raw, covered, segments = self._raw, 0.0, 0
        left, bottom, right, top = (ctypes.c_float() for _ in range(4))
        for index in range(min(raw.FPDFPage_CountObjects(page), _MAX_OBJECTS)):
            item = raw.FPDFPage_GetObject(page, index)
            kind = raw.FPDFPageObj_GetType(item)
            if kind == raw.FPDF_PAGEOBJ_PATH:
                segments += max(0, raw.FPDFPath_CountSegments(item))
            elif kind == raw.FPDF_PAGEOBJ_IMAGE or (kind == raw.FPDF_PAGEOBJ_FORM and self._has_image(item)):
                if raw.FPDFPageObj_GetBounds(item, left, bottom, right, top):
                    covered += max(0.0, right.value - left.value) * max(0.0, top.value - bottom.value)
                segments = OUTLINE_SEGMENTS
            elif kind in (raw.FPDF_PAGEOBJ_FORM, raw.FPDF_PAGEOBJ_SHADING):
                segments += OUTLINE_SEGMENTS // 4
        size = raw.FPDF_GetPageWidthF(page) * raw.FPDF_GetPageHeightF(page)
        return covered / max(1.0, size), segments >= OUTLINE_SEGMENTS

    def _has_image(self, form: Any, depth: int = 5) -> bool:
        raw = self._raw
        for index in range(min(raw.FPDFFormObj_CountObjects(form), 100)):
            item = raw.FPDFFormObj_GetObject(form, index)
            kind = raw.FPDFPageObj_GetType(item)
            if kind == raw.FPDF_PAGEOBJ_IMAGE or (kind == raw.FPDF_PAGEOBJ_FORM and depth and self._has_image(item, depth - 1)):
                return True
        return False

    def _file_faults(self) -> Iterator[str]:
        """What is wrong with the file as a whole."""
        count = self._document.count_attachments()
        if count:
            names = []
            for index in range(min(count, 20)):
                with suppress(Exception):  # a damaged entry hides no others
                    names.append(" ".join(self._document.get_attachment(index).get_name().split())[:100])
            yield f"has embedded files that were not read: {', '.join(names)}" + (" …" if count > 20 else "")

    def _annotations(self, page: Any) -> tuple[list[str], list[str]]:
        """Lines for the comments and the filled form fields of a page, and faults for attached files."""
        raw, lines, faults = self._raw, dict[str, None](), []
        load, subtype, close, link = raw.FPDFPage_GetAnnot, raw.FPDFAnnot_GetSubtype, raw.FPDFPage_CloseAnnot, raw.FPDF_ANNOT_LINK
        count = raw.FPDFPage_GetAnnotCount(page)
        for index in range(min(count, MAX_ANNOTATIONS)):
            annotation = load(page, index)
            kind = subtype(annotation) if annotation else link
            if kind == raw.FPDF_ANNOT_WIDGET:
                lines[self._field(annotation)] = None
            elif kind == raw.FPDF_ANNOT_FILEATTACHMENT:
                faults.append("has an attached file that was not read")
            elif kind not in (link, raw.FPDF_ANNOT_POPUP):
                text = self._string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
                lines[text if kind == raw.FPDF_ANNOT_FREETEXT or not text else f"Comment: {text}"] = None
            if annotation:
                close(annotation)
        if count > MAX_ANNOTATIONS:
            faults.append(f"has more than {MAX_ANNOTATIONS} comments and form fields, of which the others were not read")
        return [line for line in lines if line], faults

    def _field(self, annotation: Any) -> str:
        """A form field as a line: its name and value, or "" if it is empty or a button."""
        raw, form = self._raw, self._document.formenv
        if form is None:
            name, value = (self._string(raw.FPDFAnnot_GetStringValue, annotation, key) for key in (b"T", b"V"))
            return f"{name}: {value}" if value else ""
        kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
        if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
            if not raw.FPDFAnnot_IsChecked(form, annotation):
                return ""
            value = self._string(raw.FPDFAnnot_GetFormFieldExportValue, form, annotation) or "yes"
        elif kind in (raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX):
            value = self._string(raw.FPDFAnnot_GetFormFieldValue, form, annotation)
            if kind == raw.FPDF_FORMFIELD_LISTBOX and not value:
                value = ", ".join(self._selected(form, annotation))
        else:
            return ""
        label = self._string(raw.FPDFAnnot_GetFormFieldAlternateName, form, annotation)
        label = label or self._string(raw.FPDFAnnot_GetFormFieldName, form, annotation)
        return f"{label}: {value}" if label and value else value

    def _selected(self, form: Any, annotation: Any) -> Iterator[str]:
        raw = self._raw
        for index in range(min(raw.FPDFAnnot_GetOptionCount(form, annotation), MAX_ANNOTATIONS)):
            if raw.FPDFAnnot_IsOptionSelected(form, annotation, index):
                yield self._string(raw.FPDFAnnot_GetOptionLabel, form, annotation, index)

    @staticmethod
    def _string(function: Callable[..., int], *arguments: Any) -> str:
        """A string that pdfium writes as UTF-16 with a zero at its end."""
        length = min(function(*arguments, None, 0), 2 * MAX_VALUE_CHARACTERS)
        if length <= 2:
            return ""
        buffer = ctypes.create_string_buffer(length)
        function(*arguments, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), length)
        return " ".join(buffer.raw.decode("utf-16-le", "ignore").rstrip("\0").split())

    def _xfa_values(self) -> list[str]:
        """Names and values of an XFA form, whose pages only say that the viewer cannot show them."""
        from lxml import etree

        for index in range(min(self._raw.FPDF_GetXFAPacketCount(self._document), 100)):
            data = self._xfa_packet(index)
            start = data.find(b"<xfa:datasets")
            end = data.rfind(b"</xfa:datasets>")
            if start < 0 or end < 0:
                continue
            parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, remove_comments=True)
            root = etree.fromstring(data[start : end + len(b"</xfa:datasets>")], parser)
            if root is None:
                continue
            leaves = (element for element in root.iter(etree.Element) if len(element) == 0 and (element.text or "").strip())
            return [f"{etree.QName(element).localname}: {' '.join(element.text.split())}" for element in leaves]
        return []

    def _xfa_packet(self, index: int) -> bytes:
        length = ctypes.c_ulong()
        if not self._raw.FPDF_GetXFAPacketContent(self._document, index, None, 0, length) or length.value > 16 * 2**20:
            return b""
        buffer = ctypes.create_string_buffer(length.value)
        self._raw.FPDF_GetXFAPacketContent(self._document, index, buffer, length.value, length)
        return buffer.raw


_XFA_FAULT = "is an XFA form, which cannot be read: its pages only say so"


def _has_only_links(path: str) -> bool:
    """Whether no annotation of a file can be anything but a link, which is sure for most manuals and papers.

    pdfium takes as long to open ten links as to read a page, and most pages of such files have some.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data.find(b"/Encrypt") >= 0 or _NOTE.search(data):
            return False
        at, budget = 0, _MAX_UNPACKED_BYTES
        while (at := data.find(b"/ObjStm", at)) >= 0:
            start = data.find(b"stream", at + 7, at + 1000)
            if start < 0:
                return False
            start += 8 if data[start + 6 : start + 8] == b"\r\n" else 7
            unpacker = zlib.decompressobj()
            try:
                unpacked = unpacker.decompress(data[start : start + _MAX_PACKED_BYTES], budget)
            except zlib.error:
                return False
            budget -= len(unpacked)
            if not unpacker.eof or budget <= 0 or _NOTE.search(unpacked):
                return False
            at = start
    return True


def _is_readable(text: str) -> bool:
    """Whether text is mostly words and numbers. Fonts that do not name their letters often number them as ASCII does, but not always."""
    shown = sum(not character.isspace() for character in text)
    words = [word for word in _WORD.findall(text) if word.isdigit() or (len(word) > 2 and _is_cased_like_a_word(word))]
    letters = [character for word in words for character in word if character.isascii() and character.isalpha()]
    characters = sum(map(len, words))
    vowels = sum(letter in _VOWELS for letter in letters)
    return characters >= 0.22 * shown > 0 and vowels >= 0.2 * len(letters)


def _is_cased_like_a_word(word: str) -> bool:
    return word.islower() or word.istitle() or word.isupper()


class PypdfReader:
    """Second choice: slower, but reads some broken files that pdfium rejects."""

    name = "pypdf"

    def __init__(self, source: Source, password: str) -> None:
        import pypdf

        self._document = pypdf.PdfReader(source)
        if self._document.is_encrypted and not self._document.decrypt(password):
            raise password_error(password)
        self.pages = len(self._document.pages)
        self.title = str(self._document.metadata.title or "") if self._document.metadata else ""

    def read_page(self, number: int) -> Content:
        page = self._document.pages[number - 1]
        text: str = page.extract_text()
        if _is_undecoded(text):
            return Content("", images=True)
        return Content(text, not text.strip() and bool(page.images.keys()))


def _is_undecoded(text: str) -> bool:
    """Whether text is mostly names or numbers of glyphs, which pypdf writes for fonts that do not say which letters they have."""
    left = _GLYPH_NAMES.sub("", text)
    readable = sum(character.isprintable() and not character.isspace() for character in left)
    return 5 * readable < sum(not character.isspace() for character in text)
