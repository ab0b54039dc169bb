"""Every format is read in full: what readers are known to lose, repeat or glue together is in the text, once and apart.

The readers are called as functions here; one file of each format goes through the sandboxed process of a reader.
"""

from pathlib import Path

import pytest

from shared.documents.media_types import detect_media_type
from testing.reading_samples import Sample, samples
from testing.reading_samples.outlook import compound_file
from workers.cpu.parsing.parser import Limits, Page, read_pages
from workers.cpu.readers.reader import ReadError
from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE, open_reader

SAMPLES = samples()
ONE_OF_EACH = list({sample.kind: sample for sample in SAMPLES}.values())
LIMITS = Limits(seconds=30, memory_bytes=512 << 20, max_pages=1000, max_page_characters=200_000)


def check(sample: Sample, texts: list[str], faults: list[str]) -> None:
    text = " ".join(" ".join(texts).split())
    assert [piece for piece in sample.must if piece not in text] == [], text
    assert [piece for piece in sample.never if piece in text] == [], text
    assert {piece: text.count(piece) for piece in sample.count} == sample.count, text
    assert sample.problem in "; ".join(faults)
    if not sample.problem:
        assert "".join(faults) == ""


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_nothing_is_lost(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "original"
    path.write_bytes(sample.make())
    reader = open_reader(READERS_BY_MEDIA_TYPE[detect_media_type(path, sample.name)][0], str(path), "")
    pages = [reader.read_page(number) for number in range(1, reader.pages + 1)]
    check(sample, [page.text for page in pages], [page.fault for page in pages])
    for page in pages:
        assert all(title in page.text[start : start + len(title) + 10] for start, _, title in page.headings)


@pytest.mark.parametrize("sample", ONE_OF_EACH, ids=lambda sample: sample.kind)
def test_each_format_is_read_in_the_sandbox(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "original"
    path.write_bytes(sample.make())
    pages: list[Page] = []
    read_pages(path, detect_media_type(path, sample.name), LIMITS, lambda page, _: pages.append(page))
    check(sample, [page.text for page in pages], [page.fault for page in pages])


@pytest.mark.parametrize(
    ("stream", "advice"), [("WordDocument", "save it as .docx"), ("PowerPoint Document", "save it as .pptx"), ("Quill", ".pdf")]
)
def test_files_of_older_programs_end_with_advice(stream: str, advice: str, tmp_path: Path) -> None:
    path = tmp_path / "original"
    path.write_bytes(compound_file({stream: b"x" * 100}))
    media_type = detect_media_type(path, "old.doc")
    with pytest.raises(ReadError, match=advice) as raised:
        open_reader(READERS_BY_MEDIA_TYPE[media_type][0], str(path), "")
    assert raised.value.code == "unsupported"


def test_names_are_unique() -> None:
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES)
