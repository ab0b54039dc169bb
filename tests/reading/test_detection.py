"""Formats are recognised by what only they have, never by what any text may have."""

import json
import zipfile
from pathlib import Path

import pytest

from shared.documents.media_types import (
    CSV,
    DOCX,
    EMAIL,
    EPUB,
    HTML,
    JSON,
    JSON_LINES,
    MARKDOWN,
    OPENDOCUMENT,
    PPTX,
    RTF,
    SOURCE,
    TEXT,
    UNSUPPORTED,
    VISIO,
    XLSB,
    XLSX,
    ZIP,
    MediaType,
    detect_media_type,
)

MEMO = "To: All staff\nFrom: The boss\nSubject: New rules\nProject: Falcon 77\n\nWash your cups.\n"
SENT = "From: a@example.org\nTo: b@example.org\nMessage-ID: <1@x>\nSubject: x\n\nHello.\n"
SAVED = "From: a@example.org\nTo: b@example.org\nSubject: x\n\nHello.\n"
PAGE = "<meta charset='utf-8'>\n<title>Rules</title>\n<h1>Rules</h1><p>ten &amp; end</p>"
LINES = '{"a": "one\u2028two"}\n{"a": 2}\n'


TEXTS: list[tuple[str, str, MediaType]] = [
    ("routes.yaml", "from: warehouse\nto: harbour\ntruck: Volvo\n", SOURCE),
    ("routes.yaml", SENT, SOURCE),
    ("routes", "from: warehouse\nto: harbour\nsubject: x\n", TEXT),
    ("memo.txt", MEMO, TEXT),
    ("memo", MEMO, TEXT),
    ("notes.md", MEMO, MARKDOWN),
    ("table.csv", MEMO, CSV),
    ("letter.eml", SAVED, EMAIL),
    ("letter.eml", "From MAILER Mon May 5 10:00:00 2025\n" + SAVED, EMAIL),
    ("1700.M5.host:2,S", SENT, EMAIL),
    ("letter.txt", SENT, EMAIL),
    ("page.html", PAGE, HTML),
    ("page.htm", "<p>One paragraph.", HTML),
    ("page", PAGE, HTML),
    ("page.txt", PAGE, TEXT),
    ("readme.md", "<div align='center'><b>x</b></div>\n# Title\n", MARKDOWN),
    ("app.vue", "<script>x</script>\n<template><p>x</p></template>\n", SOURCE),
    ("letter.txt", "<b says Bob", TEXT),
    ("data.json", LINES, JSON_LINES),
    ("data.jsonl", '{"a": 1}', JSON_LINES),
    ("data.ndjson", '"a"\n"b"\n', JSON_LINES),
    ("data.json", json.dumps({"a": "x\ny"}, indent=1), JSON),
    ("letter.rtf", "{\\rtf1 x}", RTF),
]


@pytest.mark.parametrize(
    ("name", "text", "expected", "codec"),
    # RTF is ASCII by definition.
    [(*case, codec) for case in TEXTS for codec in ("utf-8", "utf-16") if (case[2], codec) != (RTF, "utf-16")],
)
def test_texts(tmp_path: Path, name: str, text: str, expected: MediaType, codec: str) -> None:
    path = tmp_path / "original"
    path.write_bytes(text.encode(codec))
    assert detect_media_type(path, name) == expected


def _types(content_type: str) -> str:
    return f'<Types><Override PartName="/x/main.xml" ContentType="application/vnd.{content_type}"/></Types>'


_OPEN = "openxmlformats-officedocument"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"[Content_Types].xml": _types(f"{_OPEN}.wordprocessingml.document.main+xml"), "word/document2.xml": ""}, DOCX),
        ({"[Content_Types].xml": _types(f"{_OPEN}.wordprocessingml.template.main+xml"), "a.xml": ""}, DOCX),
        ({"[Content_Types].xml": _types("ms-word.document.macroEnabled.main+xml"), "word/document.xml": ""}, DOCX),
        ({"[Content_Types].xml": _types(f"{_OPEN}.presentationml.slideshow.main+xml"), "a.xml": ""}, PPTX),
        ({"[Content_Types].xml": _types("ms-powerpoint.presentation.macroEnabled.main+xml"), "a.xml": ""}, PPTX),
        ({"[Content_Types].xml": _types(f"{_OPEN}.spreadsheetml.sheet.main+xml"), "xl/wb.xml": ""}, XLSX),
        ({"[Content_Types].xml": _types("ms-excel.sheet.macroEnabled.main+xml"), "a.xml": ""}, XLSX),
        ({"[Content_Types].xml": _types("ms-excel.sheet.binary.macroEnabled.main"), "xl/workbook.bin": ""}, XLSB),
        ({"[Content_Types].xml": "damaged", "word/document2.xml": ""}, DOCX),
        ({"[Content_Types].xml": _types("ms-visio.drawing.main+xml"), "visio/document.xml": ""}, VISIO),
        ({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": ""}, OPENDOCUMENT),
        ({"content.xml": "", "META-INF/manifest.xml": ""}, OPENDOCUMENT),
        ({"mimetype": "application/epub+zip", "a": ""}, EPUB),
        ({"META-INF/container.xml": "", "a": ""}, EPUB),
        ({"mimetype": "application/x-krita", "a": ""}, UNSUPPORTED),
        ({"Index/Document.iwa": "", "preview.jpg": ""}, UNSUPPORTED),
        ({"letters/one.txt": "x", "report.docx": "x"}, ZIP),
        ({"backup/[Content_Types].xml": _types(f"{_OPEN}.wordprocessingml.document.main+xml")}, ZIP),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(tmp_path: Path, members: dict[str, str], expected: MediaType, method: int) -> None:
    path = tmp_path / "original"
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, text in members.items():
            packed.writestr(name, text, zipfile.ZIP_STORED if name == "mimetype" else method)
    assert detect_media_type(path, "file.zip") == expected
