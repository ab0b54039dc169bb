"""Odd and hostile files, generated on demand: name, bytes, expected status, and a part of the expected reason.

For the status ``ready``, a part of the expected text is given instead of a reason.
"""

import bz2
import csv
import email.message
import gzip
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import docx
import openpyxl
import pptx
from docx.enum.text import WD_BREAK
from fpdf import FPDF
from PIL import Image
from pypdf import PdfWriter

from testing.reading_samples import binary_book, drawing, drawing_shape, open_document, outlook

XML = '<?xml version="1.0" encoding="UTF-8"?>'
GERMAN = "Die Größe der Straße übertrifft die Höhe der Häuser und Bäume am Flußufer. "
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. "
JAPANESE = "これは日本語の文章です。漢字とかなが混ざっています。"
CHINESE = "这是一个简单的中文句子用来测试编码。"
ARABIC = "هذا نص عربي يُقرأ من اليمين إلى اليسار."
HEBREW = "זהו טקסט בעברית שנקרא מימין לשמאל."
LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("abcdefghij", "bcdefghijk", strict=True)
)


@dataclass(frozen=True)
class OddFile:
    """``name`` is the name as uploaded, ``end`` the expected status, ``says`` a part of the reason or of the text."""

    name: str
    make: Callable[[], bytes]
    end: str
    says: str = ""
    password: str = ""


def pdf(*pages: str | None) -> bytes:
    """A page for each text; None is a page that holds only an image."""
    paper = FPDF()
    for text in pages:
        paper.add_page()
        paper.set_font("Helvetica", size=12)
        if text is None:
            paper.image(Image.new("RGB", (20, 20), "red"), x=20, y=20, w=100)
        else:
            paper.multi_cell(0, 8, text)
    return bytes(paper.output())


def locked_pdf(password: str, algorithm: str = "AES-256") -> bytes:
    writer, target = PdfWriter(clone_from=io.BytesIO(pdf("Secret words."))), io.BytesIO()
    writer.encrypt(password, "owner", algorithm=algorithm)
    writer.write(target)
    return target.getvalue()


def raw_pdf(
    content: bytes, *, packed: bytes | None = None, box: str = "0 0 612 792", kids: str = "3 0 R", count: int = 1
) -> bytes:
    """A PDF of one page whose content stream is ``content``, or unpacks to it."""
    filters = b"" if packed is None else b"/Filter /FlateDecode "
    body = content if packed is None else packed
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".encode(),
        b"<< %s/Length %d >>\nstream\n%s\nendstream" % (filters, len(body), body),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    return _assembled(objects)


def many_pages(*texts: str) -> bytes:
    """A PDF with one page of one line for each text; fast even for thousands of pages."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(texts)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(texts)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(texts):
        body = b"BT /F1 1 Tf 20 400 Td (%s) Tj ET" % text.encode("ascii")
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 2000 792] /Contents {5 + 2 * number} 0 R {resources} >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(body), body))
    return _assembled(objects)


def _assembled(objects: Sequence[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, text)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size, begin = len(objects) + 1, len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, begin)
    return bytes(out)


def pdf_bomb() -> bytes:
    packer = zlib.compressobj(9)
    block = b"BT /F1 12 Tf (x) Tj ET\n" * 50_000
    return raw_pdf(b"", packed=b"".join(packer.compress(block) for _ in range(500)) + packer.flush())


def word(*, text: str = "Written in Word.", heading: str = "", picture: bool = False) -> bytes:
    document, target = docx.Document(), io.BytesIO()
    if heading:
        document.add_heading(heading, 1)
    if text:
        document.add_paragraph(text)
    if picture:
        image = io.BytesIO()
        Image.new("RGB", (20, 20), "red").save(image, "PNG")
        image.seek(0)
        document.add_picture(image)
    document.save(target)
    return target.getvalue()


def word_of_two_pages() -> bytes:
    document, target = docx.Document(), io.BytesIO()
    paragraph = document.add_paragraph("Before the break.")
    paragraph.add_run().add_break(WD_BREAK.PAGE)
    paragraph.add_run("Behind the break.")
    table = document.add_table(rows=2, cols=2)
    for row, values in enumerate((("Part", "Price"), ("Bolt", "12"))):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    document.save(target)
    return target.getvalue()


def slides(*titles: str, notes: str = "") -> bytes:
    deck, target = pptx.Presentation(), io.BytesIO()
    for title in titles:
        slide = deck.slides.add_slide(deck.slide_layouts[0])
        slide.shapes.title.text = title
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    deck.save(target)
    return target.getvalue()


def workbook(rows: list[list[object]], *, far: bool = False) -> bytes:
    book, target = openpyxl.Workbook(), io.BytesIO()
    sheet = book.active
    for row in rows:
        sheet.append(row)
    if far:
        sheet["XFD1048576"] = "far away"
    book.save(target)
    return target.getvalue()


def repacked(data: bytes, changes: dict[str, bytes | None], compress: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with some members replaced or added; None removes a member."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", compress) as new:
        for member in old.namelist():
            if member not in changes:
                new.writestr(member, old.read(member))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
    return target.getvalue()


def word_bomb() -> bytes:
    filler = b"<w:p><w:r><w:t>" + b"a" * 1000 + b"</w:t></w:r></w:p>"
    body = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    return repacked(word(), {"word/document.xml": body + filler * 120_000 + b"</w:body></w:document>"})


def many_parts() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr("word/document.xml", "<x/>")
        for number in range(21_000):
            packed.writestr(f"word/{number}", b"")
    return target.getvalue()


def book(*chapters: str, encryption: str = "", missing: bool = False) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr("mimetype", "application/epub+zip")
        packed.writestr(
            "META-INF/container.xml",
            f'{XML}<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OPS/package.opf"/></rootfiles></container>',
        )
        items = "".join(f'<item id="c{n}" href="c%20{n}.xhtml"/>' for n in range(len(chapters)))
        spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
        packed.writestr("OPS/package.opf", f'{XML}<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest>'
                        f"<spine>{spine}</spine></package>")  # fmt: skip
        for number, chapter in enumerate(chapters):
            if not (missing and number == 0):
                packed.writestr(f"OPS/c {number}.xhtml", f"{XML}<html><body>{chapter}</body></html>")
        if encryption:
            packed.writestr("META-INF/encryption.xml", f'<encryption><EncryptedData><EncryptionMethod Algorithm="{encryption}"/>'
                            '<CipherData><CipherReference URI="OPS/c%200.xhtml"/></CipherData></EncryptedData></encryption>')  # fmt: skip
    return target.getvalue()


def letter(*, html: str = "", attached: dict[str, bytes] | None = None) -> bytes:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "ada@example.org", "bob@example.org", "Grüße aus der Fabrik"
    if html:
        message.set_content(html, subtype="html")
    else:
        message.set_content("The boiler arrives on Tuesday.")
    for name, data in (attached or {}).items():
        kind = "text/plain" if name.endswith(".txt") else "application/octet-stream"
        message.add_attachment(data, maintype=kind.split("/")[0], subtype=kind.split("/")[1], filename=name)
    return message.as_bytes()


def packed_zip(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return target.getvalue()


def packed_tar(name: str, data: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as packed:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        packed.addfile(member, io.BytesIO(data))
    return target.getvalue()


def rows_of_commas() -> bytes:
    target = io.StringIO()
    csv.writer(target).writerows([["Name", "Born"], ["Ada Lovelace", "1815"], ["Grace Hopper", "1906"]])
    return target.getvalue().encode()


def picture(kind: str) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (8, 8), "blue").save(target, kind)
    return target.getvalue()


def ole(*, encrypted: bool) -> bytes:
    """A minimal OLE container, or a real encrypted Office file."""
    import msoffcrypto.format.ooxml

    if not encrypted:
        return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000)
    target = io.BytesIO()
    msoffcrypto.format.ooxml.OOXMLFile(io.BytesIO(word(text="Locked in Word."))).encrypt("secret", target)
    return target.getvalue()


def notebook() -> bytes:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Boilers\n", "\n", "They are *inspected* on Mondays."]},
        {
            "cell_type": "code",
            "execution_count": 1,
            "metadata": {},
            "source": ["pressure = 40\n", "pressure"],
            "outputs": [
                {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": {"text/plain": ["forty bar"]}},
                {"output_type": "error", "ename": "ValueError", "evalue": "too hot", "traceback": []},
            ],
        },
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1).encode()


WEB_VTT = """WEBVTT - A film

NOTE not spoken

STYLE
::cue { color: red }

intro
00:01.000 --> 00:04.000 align:start
<v Anna>The boiler is <i>inspected</i>
<00:02.000>on Mondays &amp; Fridays.

01:00:05.000 --> 01:00:07.500
<v Anna>Never on Sundays.
"""

SUBTITLES = """1
00:00:01,000 --> 00:00:04,000
The boiler is <i>inspected</i>
on Mondays.

2
00:00:05,000 --> 00:00:07,500
Größe matters.
"""


def saved_page() -> bytes:
    page = "<html><head><meta charset='utf-8'></head><body><h1>Boilers</h1><p>Gr\u00f6\u00dfe <b>matters</b>.</p></body></html>"
    archive = email.message.EmailMessage()
    archive["From"], archive["Subject"] = "<Saved by Blink>", "Boilers"
    archive["Snapshot-Content-Location"] = "https://example.org/boilers"
    archive.set_content(page, subtype="html", cte="quoted-printable")
    archive.add_related(b"p { color: red }", "text", "css")
    return archive.as_bytes()


def evernote(*notes: tuple[str, str], doctype: str = '<!DOCTYPE en-export SYSTEM "http://127.0.0.1/export4.dtd">') -> bytes:
    body = "".join(
        f"<note><title>{title}</title><created>20261101T090000Z</created>"
        f"<content><![CDATA[{XML}<en-note>{content}</en-note>]]></content></note>"
        for title, content in notes
    )
    return f'{XML}\n{doctype}\n<en-export export-date="20261127T100000Z">{body}</en-export>'.encode()


def text(content: str, codec: str = "utf-8") -> Callable[[], bytes]:
    return lambda: content.encode(codec)


def odd_files() -> Iterator[OddFile]:
    """All files, grouped by format."""
    yield OddFile("plain.pdf", lambda: pdf("A plain page."), "ready", "A plain page.")
    yield OddFile("pdf-named.txt", lambda: pdf("Known by content."), "ready", "Known by content.")
    yield OddFile("../../etc/passwd.pdf", lambda: pdf("A name with slashes."), "ready", "slashes")
    yield OddFile("junk-before.pdf", lambda: b"\r\n" * 40 + pdf("Junk comes first."), "ready", "Junk comes first.")
    yield OddFile("scanned.pdf", lambda: pdf(None, None), "needs_ocr", "1-2 of 2")
    yield OddFile("half-scanned.pdf", lambda: pdf("Typed.", None), "ready", "Typed.")
    yield OddFile("blank.pdf", lambda: pdf("", ""), "empty", "neither text nor images")
    yield OddFile("header-only.pdf", lambda: b"%PDF-1.7\n", "failed", "could not be read")
    yield OddFile("truncated.pdf", lambda: pdf("Cut off.")[:300], "failed", "pypdf")
    yield OddFile("no-table.pdf", lambda: pdf("No table.").replace(b"startxref", b"startyref"), "ready", "No table.")
    yield OddFile("garbage.pdf", lambda: b"%PDF-1.4\n" + bytes(range(256)) * 40, "failed", "could not be read")
    yield OddFile("locked.pdf", lambda: locked_pdf("secret"), "encrypted", "password")
    yield OddFile("locked-rc4.pdf", lambda: locked_pdf("secret", "RC4-128"), "encrypted", "password")
    yield OddFile("unlocked.pdf", lambda: locked_pdf("secret"), "ready", "Secret words.", password="secret")
    yield OddFile("wrong-password.pdf", lambda: locked_pdf("secret"), "encrypted", "does not open the file", password="guess")
    yield OddFile("owner-locked.pdf", lambda: locked_pdf(""), "ready", "Secret words.")
    yield OddFile("bomb.pdf", pdf_bomb, "failed", "could not be read")
    yield OddFile("cycle.pdf", lambda: raw_pdf(b"", kids="2 0 R"), "failed", "could not be read")
    yield OddFile("count-lies.pdf", lambda: raw_pdf(b"BT /F1 9 Tf (x) Tj ET", count=2_000_000), "ready", "x")
    yield OddFile("huge-page.pdf", lambda: raw_pdf(b"BT /F1 9 Tf (Large) Tj ET", box="0 0 1e9 1e9"), "ready", "Large")
    yield OddFile("empty.txt", lambda: b"", "empty", "neither text nor images")
    yield OddFile("spaces.txt", lambda: b" \n\t\r\n " * 100, "empty", "neither text nor images")
    yield OddFile("latin-1.txt", text(GERMAN * 20, "latin-1"), "ready", "Größe der Straße")
    yield OddFile("late-latin-1.txt", text("plain words " * 9000 + GERMAN * 20, "latin-1"), "ready", "Höhe der Häuser")
    yield OddFile("cp1251.txt", text(RUSSIAN * 10, "cp1251"), "ready", "мягких")
    yield OddFile("koi8.txt", text(RUSSIAN * 10, "koi8-r"), "ready", "булок")
    yield OddFile("shift-jis.txt", text(JAPANESE * 20, "shift_jis"), "ready", "日本語")
    yield OddFile("euc-jp.txt", text(JAPANESE * 20, "euc_jp"), "ready", "日本語")
    yield OddFile("gb18030.txt", text(CHINESE * 20, "gb18030"), "ready", "中文")
    yield OddFile("utf-16.txt", text(GERMAN, "utf-16"), "ready", "Flußufer")
    yield OddFile("utf-16-no-mark.txt", text(GERMAN * 3, "utf-16-le"), "ready", "Flußufer")
    yield OddFile("utf-32.txt", text(GERMAN, "utf-32"), "ready", "Flußufer")
    yield OddFile("utf-8-mark.txt", text(HEBREW, "utf-8-sig"), "ready", "בעברית")
    yield OddFile("arabic.txt", text(ARABIC), "ready", "عربي")
    yield OddFile("one-line.txt", text("word " * 300_000), "ready", "word word")
    yield OddFile("nul.bin", lambda: bytes(5000), "unsupported", "Supported formats")
    yield OddFile("random.txt", lambda: bytes((n * 197 + n // 7) % 256 for n in range(9000)), "unsupported", "Supported formats")
    yield OddFile("picture.png", lambda: picture("PNG"), "needs_ocr", "only images")
    yield OddFile("picture.pdf", lambda: picture("JPEG"), "needs_ocr", "only images")
    yield OddFile("program", lambda: b"\x7fELF\x02\x01\x01" + bytes(900), "unsupported", "Supported formats")
    yield OddFile("notes.md", text("# Boilers\n\ntext\n\n## Valves\n\n```\n# no heading\n```\n"), "ready", "Valves")
    yield OddFile("code.py", text("def boil(water):\n    return water + 80\n"), "ready", "def boil")
    yield OddFile("page.html", text("<!DOCTYPE html><title>T</title><h1>Oven</h1><script>evil()</script><p>Hot"), "ready", "Hot")
    yield OddFile("page.txt", text("<html><body><p>HTML by its content.</body></html>"), "ready", "HTML by its content.")
    yield OddFile("declared.html", text('<html><meta charset="iso-8859-1"><p>Größe</p></html>', "latin-1"), "ready", "Größe")
    yield OddFile("deep.html", text("<html><body>" + "<div>" * 2_000 + "deep"), "ready", "deep")
    yield OddFile("abyss.html", text("<html><body>" + "<div>" * 100_000 + "deep"), "too_large", "nested")
    yield OddFile("large.html", text("<html><body>" + "<p>A paragraph of a large page.</p>" * 1_500_000), "too_large", "memory")
    yield OddFile("scripts.html", text("<html><script>only()</script></html>"), "empty", "neither text nor images")
    yield OddFile("images.html", text("<html><body><img src='http://127.0.0.1/x.png'></body></html>"), "needs_ocr", "only images")
    yield OddFile("laughs.html", text(f"<!DOCTYPE html>{LAUGHS}]><html><p>&k; fine</p></html>"), "ready", "fine")
    yield OddFile("people.csv", rows_of_commas, "ready", "Name: Grace Hopper; Born: 1906")
    yield OddFile(
        "semicolons.csv", text("Stadt;Land\nKöln;Deutschland\nWien;Österreich\n", "cp1252"), "ready", "Land: Deutschland"
    )
    yield OddFile("open-quote.csv", text('a,b\n"never closed,1\n2,3\n'), "ready", "never closed")
    yield OddFile("data.json", text(json.dumps({"order": {"lines": [{"part": "bolt"}]}})), "ready", "order.lines[0].part: bolt")
    yield OddFile("deep.json", text("[" * 100_000 + "]" * 100_000), "too_large", "levels deep")
    yield OddFile("broken.json", text('{"half": '), "ready", '{"half": ')
    yield OddFile("lines.jsonl", text('{"a": "one"}\n{"a": "two"}\n{"a": 3}\n'), "ready", "a: two")
    yield OddFile("bad-line.jsonl", text('{"a": "one"}\n{"a": "two"}\n{"a": "three"}\nno json\n'), "ready", "no json")
    yield OddFile("letter.docx", word, "ready", "Written in Word.")
    yield OddFile("letter.zip", word, "ready", "Written in Word.")
    yield OddFile("pages.docx", word_of_two_pages, "ready", "Part: Bolt; Price: 12")
    yield OddFile("picture.docx", lambda: word(text="", picture=True), "needs_ocr", "only images")
    yield OddFile("plant.vsdx", lambda: drawing(drawing_shape("Boiler 7", 1, 1)), "ready", "Boiler 7")
    yield OddFile("blank.docx", lambda: word(text=""), "empty", "neither text nor images")
    yield OddFile("truncated.docx", lambda: word()[:-4000], "failed", "could not be read")
    yield OddFile("no-types.docx", lambda: repacked(word(), {"[Content_Types].xml": None}), "ready", "Written in Word.")
    yield OddFile("no-document.docx", lambda: repacked(word(), {"word/document.xml": None}), "failed", "could not be read")
    yield OddFile("bomb.docx", word_bomb, "too_large", "unpacks to")
    yield OddFile("parts.docx", many_parts, "too_large", "parts")
    yield OddFile(
        "laughs.docx",
        lambda: repacked(word(), {"word/document.xml": f"{XML}{LAUGHS}]><w>&k;</w>".encode()}),
        "failed",
        "could not be read",
    )  # fmt: skip
    yield OddFile("locked.docx", lambda: ole(encrypted=True), "encrypted", "password")
    yield OddFile("unlocked.docx", lambda: ole(encrypted=True), "ready", "Locked in Word.", password="secret")
    yield OddFile("old.doc", lambda: ole(encrypted=False), "failed", "could not be read")
    yield OddFile("deck.pptx", lambda: slides("First slide", "Second slide", notes="Spoken."), "ready", "Spoken.")
    yield OddFile("no-slides.pptx", slides, "empty", "neither text nor images")
    yield OddFile("stock.xlsx", lambda: workbook([["Part", "Count"], ["Bolt", 12]]), "ready", "Part: Bolt; Count: 12")
    yield OddFile("far.xlsx", lambda: workbook([["near"]], far=True), "ready", "far away")
    yield OddFile("bomb.xlsx", lambda: repacked(workbook([[1]]), {"xl/media/fill": bytes(80_000_000)}), "too_large", "unpacks to")
    yield OddFile("tale.epub", lambda: book("<h1>One</h1><p>Begin.</p>", "<p>End.</p>"), "ready", "Begin.")
    yield OddFile("missing.epub", lambda: book("<p>Gone.</p>", "<p>Still here.</p>", missing=True), "ready", "Still here.")
    yield OddFile(
        "drm.epub", lambda: book("<p>Locked.</p>", encryption="http://www.w3.org/2001/04/xmlenc#aes128-cbc"), "encrypted", "DRM"
    )
    yield OddFile("fonts.epub", lambda: book("<p>Free.</p>", encryption="http://www.idpf.org/2008/embedding"), "ready", "Free.")
    yield OddFile("letter.eml", letter, "ready", "The boiler arrives")
    yield OddFile("html.eml", lambda: letter(html="<p>Sent as <b>HTML</b>.</p>"), "ready", "Sent as HTML.")
    yield OddFile(
        "attached.eml", lambda: letter(attached={"a.txt": b"Attached words.", "b.bin": b"\0\1"}), "ready", "Attached words."
    )
    yield OddFile("page.mhtml", saved_page, "ready", "Boilers\nGröße matters.")
    yield OddFile("study.ipynb", notebook, "ready", "forty bar")
    yield OddFile(
        "notebook.json", lambda: notebook().replace(b'"nbformat": 4,', b'"nbformat": 3,'), "ready", "cells[0].source[0]"
    )
    yield OddFile("broken.ipynb", lambda: notebook()[:-100] + b'"nbformat": 4', "failed", "could not be read")
    yield OddFile("film.vtt", text(WEB_VTT), "ready", "Anna: The boiler is inspected")
    yield OddFile("film.srt", text(SUBTITLES), "ready", "The boiler is inspected")
    yield OddFile("film.txt", text(SUBTITLES, "cp1252"), "ready", "Größe matters.")
    yield OddFile("notes.enex", lambda: evernote(("Boilers", "<div>Inspected on <b>Mondays</b>.</div>")), "ready", "Mondays")
    yield OddFile(
        "laughs.enex", lambda: evernote(("&k;", "x"), doctype=f"{LAUGHS}]>".replace("lolz", "en-export")), "failed", "read"
    )
    yield OddFile("empty.enex", evernote, "empty", "neither text nor images")
    body = "The boiler arrives on Tuesday.".encode("utf-16-le")
    yield OddFile("letter.msg", lambda: outlook({"1000001F": body}), "ready", "The boiler arrives on Tuesday.")
    yield OddFile("cut.msg", lambda: outlook({"1000001F": body})[:1500], "failed", "could not be read")
    yield OddFile("letter.odt", lambda: open_document("<text:p>Open text.</text:p>"), "ready", "Open text.")
    yield OddFile("blank.odt", lambda: open_document(""), "empty", "neither text nor images")
    yield OddFile("stock.xlsb", lambda: binary_book(["Part", "Count"], ["Bolt", 12.0]), "ready", "Part: Bolt; Count: 12")
    yield OddFile("letter.rtf", lambda: b"{\\rtf1\\ansi Rich {\\b text} with \\'fc.\\par}", "ready", "Rich text with ü.")
    yield OddFile("cut.rtf", lambda: b"{\\rtf1\\ansi Rich {\\b te", "failed", "truncated")
    yield OddFile("deep.rtf", lambda: b"{\\rtf1 " + b"{" * 50_000 + b"deep" + b"}" * 50_001, "ready", "deep")
    yield OddFile("inner.zip", lambda: packed_zip({"a.zip": packed_zip({"a": b"text"})}), "unsupported", "archive")
    yield OddFile("inner.tar", lambda: packed_tar("a.txt", b"text"), "unsupported", "archive")
    yield OddFile("inner.tar.gz", lambda: gzip.compress(packed_tar("a.txt", b"text")), "unsupported", "archive")
    yield OddFile("text.gz", lambda: gzip.compress(b"text"), "unsupported", "Supported formats")
    yield OddFile("text.bz2", lambda: bz2.compress(b"text"), "unsupported", "Supported formats")
