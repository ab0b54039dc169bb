"""WebVTT subtitles: what is spoken is read, and nothing else."""

from pathlib import Path

import pytest

from shared.documents.media_types import TEXT, WEB_VTT, detect_media_type
from tests.odd_files import WEB_VTT as SAMPLE
from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE, open_reader


def read(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8", newline="")
    assert detect_media_type(path, path.name) == WEB_VTT
    [reader] = READERS_BY_MEDIA_TYPE[WEB_VTT]
    return open_reader(reader, str(path), "").read_page(1).text


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_cues_are_lines_with_their_speakers(tmp_path: Path, line_end: str) -> None:
    text = read(tmp_path / "film.vtt", SAMPLE.replace("\n", line_end))
    assert text == "Anna: The boiler is inspected on Mondays & Fridays.\nNever on Sundays.\n"


def test_signs_that_are_no_tags_stay(tmp_path: Path) -> None:
    cue = "\ufeffWEBVTT\n\n00:01.000 --> 00:02.000\n- 3 < 4 &lt; 5\n- <c.loud>Yes!</c>\n"
    assert read(tmp_path / "film.txt", cue) == "- 3 < 4 < 5 - Yes!\n"


def test_a_text_about_webvtt_is_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("WEBVTTs are subtitles.\n")
    assert detect_media_type(path, path.name) == TEXT
