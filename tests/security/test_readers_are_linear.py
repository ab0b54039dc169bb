"""Readers take linear time for files that repeat one thing many times: paragraphs, headings, names, brackets."""

import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import pytest

from workers.cpu.readers.reader import ReadError
from workers.cpu.readers.registry import open_reader

CPU_SECONDS = 3.0
MANY = 20_000


def word_file(paragraph: bytes, count: int) -> bytes:
    empty, packed = io.BytesIO(), io.BytesIO()
    docx.Document().save(empty)
    with zipfile.ZipFile(empty) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(
                name, data.replace(b"<w:body>", b"<w:body>" + paragraph * count) if name == "word/document.xml" else data
            )
    return packed.getvalue()


def mail(headers: bytes) -> bytes:
    return b"From: a@example.org\nTo: b@example.org\nSubject: boilers\n" + headers + b"\n\nThe boiler is cold."


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty paragraphs": ("docx", lambda: word_file(b"<w:p/>", 5 * MANY)),
    "page breaks": ("docx", lambda: word_file(b'<w:p><w:r><w:br w:type="page"/></w:r></w:p>', MANY)),
    "text boxes": ("docx", lambda: word_file(b"<w:p><w:r><w:txbxContent><w:p/></w:txbxContent></w:r></w:p>", MANY)),
    "deleted runs": ("docx", lambda: word_file(b"<w:p>" + b"<w:del><w:r/></w:del>" * 50 + b"</w:p>", MANY // 50)),
    "spans": (
        "docx",
        lambda: word_file(b"<w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan w:val='9999'/></w:tcPr></w:tc></w:tr></w:tbl>", MANY),
    ),
    "quoted names": ("e-mail", lambda: mail(b"Cc: " + b", ".join(b'"name %d" <a@b>' % number for number in range(5 * MANY)))),
    "open comments of addresses": ("e-mail", lambda: mail(b"Cc: " + b"(" * MANY)),
    "encoded words": ("e-mail", lambda: mail(b"Cc: " + b"=?utf-8?q?a" * MANY)),
    "parameters": ("e-mail", lambda: mail(b"Content-Type: text/plain; " + b"; ".join(b'a%d="b"' % n for n in range(MANY)))),
    "headers": ("e-mail", lambda: mail(b"X: y\n" * 5 * MANY)),
    "spaces after a hash": ("markdown", lambda: b"# " + b" #" * 5 * MANY),
    "headings": ("markdown", lambda: b"# a\n" * 5 * MANY),
    "underlines": ("markdown", lambda: b"a\n===\n" * 5 * MANY),
    "paragraphs": ("html", lambda: b"<p>" * 5 * MANY),
    "headings of a page": ("html", lambda: b"<h1>a</h1>" * MANY),
    "comments": ("html", lambda: b"<html>" + b"<!--" * 5 * MANY),
    "raised digits": ("html", lambda: b"<p>1" + b"<sup>1</sup>" * MANY),
    "letters beyond ASCII": ("html", lambda: b"<meta charset=utf-8><p>" + b"a\xe9" * 5 * MANY),
    "declarations": ("html", lambda: b"<meta" * 5 * MANY + b"<p>a"),
    "form feeds": ("text", lambda: b"\f" * 5 * MANY),
    "newlines": ("text", lambda: b"\n" * 50 * MANY),
    "quotes": ("csv", lambda: b'"' * 5 * MANY),
    "delimiters": ("csv", lambda: b",\n" * 5 * MANY),
    "values": ("json", lambda: b"[" + b"1," * 2 * MANY + b"1]"),
    "lines": ("json lines", lambda: b"1\n" * 2 * MANY),
    "groups": ("rtf", lambda: b"{\\rtf1 " + b"{" * 5 * MANY + b"}" * (5 * MANY + 1)),
    "paragraphs of rich text": ("rtf", lambda: b"{\\rtf1 " + b"a\\par " * MANY + b"}"),
    "cells of rich text": ("rtf", lambda: b"{\\rtf1 " + b"a\\cell " * MANY + b"\\row}"),
    "notes of rich text": ("rtf", lambda: b"{\\rtf1 " + b"{\\footnote a}" * MANY + b"}"),
    "open tags of web subtitles": ("web vtt", lambda: b"WEBVTT\n\n00:01.000 --> 00:02.000\n" + b"<v " * MANY + b"\n"),
    "blank lines of web subtitles": ("web vtt", lambda: b"WEBVTT\n\n" + b"\n" * 5 * MANY),
    "open tags of subtitles": ("subtitles", lambda: b"1\n00:00:01,000 --> 00:00:02,000\n" + b"<a" * MANY + b"\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_repetitive_file_takes_linear_time(tmp_path: Path, name: str) -> None:
    reader, make = FILES[name]
    path = tmp_path / "original"
    path.write_bytes(make())
    start = time.thread_time()
    try:
        opened = open_reader(reader, str(path), "")
        for number in range(1, min(opened.pages, 100) + 1):
            opened.read_page(number)
    except ReadError:
        pass
    assert time.thread_time() - start < CPU_SECONDS


def test_a_long_header_is_cut_and_the_message_read(tmp_path: Path) -> None:
    path = tmp_path / "original"
    path.write_bytes(FILES["quoted names"][1]())
    text = open_reader("e-mail", str(path), "").read_page(1).text
    assert "Subject: boilers" in text
    assert "name 0" in text
    assert "The boiler is cold." in text
    assert len(text) < 10_000
