"""Every file of the odd-files table ends with its expected status and reason."""

import sys
from pathlib import Path

import pytest

from shared.documents.media_types import detect_media_type
from shared.errors import DocumentRejected
from tests.odd_files import OddFile, odd_files
from workers.cpu.parsing.page_summary import summarize_pages
from workers.cpu.parsing.parser import Limits, Page, read_pages
from workers.cpu.readers.langchain_loaders import EvernoteReader, SubtitleReader
from workers.cpu.readers.reader import ReadError

LIMITS = Limits(seconds=30, memory_bytes=512 << 20, max_pages=100_000, max_page_characters=200_000)
FILES = list(odd_files())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_ends_with_the_expected_status(tmp_path: Path, file: OddFile) -> None:
    path = tmp_path / "original"
    path.write_bytes(file.make())
    pages: list[Page] = []
    end, text = "ready", ""
    try:
        read_pages(path, detect_media_type(path, file.name), LIMITS, lambda page, _: pages.append(page), password=file.password)
        summarize_pages(pages)
        text = "\n".join(page.text for page in pages)
    except DocumentRejected as rejected:
        end, text = rejected.code, rejected.message
    assert (end, file.says in text) == (file.end, True), text[:500]
    for page in pages:
        assert all(title in page.text[start : start + len(title) + 10] for start, _, title in page.headings)


def test_the_table_covers_every_status_and_has_unique_names() -> None:
    assert len({file.name for file in FILES}) == len(FILES) >= 60
    assert {file.end for file in FILES} == {"ready", "empty", "needs_ocr", "encrypted", "unsupported", "too_large", "failed"}


@pytest.mark.parametrize(("name", "library"), [("film.srt", "pysrt"), ("notes.enex", "html2text")])
def test_a_format_whose_library_is_missing_says_what_to_install(
    name: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(next(file for file in FILES if file.name == name).make())
    reader = {"film.srt": SubtitleReader, "notes.enex": EvernoteReader}[name]
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ReadError, match="gpl-formats") as rejected:
        reader(str(path), "")
    assert rejected.value.code == "unsupported"
