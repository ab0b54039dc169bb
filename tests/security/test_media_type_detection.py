"""Media types are detected in the API's own process, so no file may make detection slow."""

import json
import random
import time
from pathlib import Path

import pytest

from shared.documents.media_types import EVERNOTE, HTML, TEXT, detect_media_type

CPU_SECONDS = 0.5
SIZE = 64 * 1024

HOSTILE = {
    "comments": b"<!---->" * 40 + b"x",
    "many comments": b"<!---->" * (SIZE // 7),
    "open comments": b"<!--" * (SIZE // 4),
    "declarations": b"<?xml>" * (SIZE // 6),
    "spaces": b" " * SIZE + b"<",
    "subtitle numbers": b"1" * SIZE,
    "headers": b"From: a\nTo:" + b" \n" * (SIZE // 2),
    "deep JSON": b"[" * SIZE,
    "digits": b"[" + b"9" * SIZE,
    "quotes": b'{"' * (SIZE // 2),
    "legacy encoding": bytes(random.Random(1).choices(range(128, 256), k=SIZE)),
    "mixed encodings": bytes(random.Random(2).choices([*b"abc \n", *range(160, 256)], k=SIZE)),
    "zip directory": b"PK\x03\x04" + b"PK\x01\x02" * 200_000 + b"PK\x05\x06" + bytes(8) + b"\xff\xff\xff\x00" + bytes(6),
    "xz": b"\xfd7zXZ\x00" + b"\xff" * SIZE,
    "bzip2": b"BZh9" + b"1AY&SY" * (SIZE // 6),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_judged_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "original"
    path.write_bytes(HOSTILE[name])
    start = time.thread_time()
    detect_media_type(path, "hostile.txt")
    assert time.thread_time() - start < CPU_SECONDS


def test_markup_is_recognised_after_declarations_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "original"
    for text, media_type in [
        ("<!-- a --> <!-- b -->\n<!DOCTYPE  html>", HTML),
        ('\n<?xml version="1.0"?>\n<!-- a --><html lang="en">', HTML),
        ('<?xml version="1.0"?><!DOCTYPE en-export SYSTEM "x">', EVERNOTE),
        ("<!-- never closed <html>", TEXT),
        ("<htmlx>", TEXT),
        (json.dumps("<html>"), TEXT),
    ]:
        path.write_text(text)
        assert detect_media_type(path, "page") == media_type, text
