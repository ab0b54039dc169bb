"""Mutated files of every kind end with text or with a reason, within the limits of time and memory, whatever was changed in them.

The mutations have a fixed seed, so a file that fails here fails again.
"""

import itertools
import random
import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from shared.documents.media_types import ARCHIVES, ZIP, detect_media_type
from shared.errors import DocumentRejected
from tests.odd_files import OddFile, odd_files, picture
from workers.cpu.archives.archive import ArchiveLimits, MemberBytes, MemberSkipped, unpack_members
from workers.cpu.parsing.page_summary import summarize_pages
from workers.cpu.parsing.parser import Limits, Page, read_pages
from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE

SEED = 11
LIMITS = Limits(seconds=5, memory_bytes=512 << 20, max_pages=2000, max_page_characters=200_000, max_characters=1_000_000)
ARCHIVE_LIMITS = ArchiveLimits(
    seconds=5, memory_bytes=512 << 20, max_members=100, max_member_bytes=1 << 20, max_bytes=8 << 20, max_ratio=200
)
# Starting two readers on a busy machine comes on top of the limit for reading.
MAX_SECONDS = 60
MAX_BYTES = 300_000


def mutate(data: bytes, dice: random.Random) -> bytes:
    """Change, delete, repeat or insert bytes in a few places, or cut the end."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        start = dice.randrange(len(changed) + 1)
        end = min(len(changed), start + dice.choice([1, 1, 4, 64]))
        match dice.randrange(6):
            case 0:
                changed[start:end] = dice.randbytes(end - start)
            case 1:
                del changed[start:end]
            case 2:
                changed[start:start] = changed[start:end] * dice.choice([2, 50, 2000])
            case 3:
                changed[start:end] = dice.choice([b"\xff" * 4, b"\0" * 4, b"99999999", b"-1", b"<!--", b"]]>", b"%s", b"\\u0000"])
            case 4 if end > start:
                changed[start] ^= 1 << dice.randrange(8)
            case _:
                del changed[dice.randrange(len(changed) + 1) :]
    return bytes(changed[:MAX_BYTES])


@cache
def samples() -> dict[str, list[tuple[OddFile, bytes]]]:
    """The files of the table that are not large, and their bytes, by the suffix of their names."""
    kinds: dict[str, list[tuple[OddFile, bytes]]] = {}
    pictures = [
        OddFile(f"picture.{kind.lower()}", partial(picture, kind), "needs_ocr") for kind in ("TIFF", "WEBP", "BMP", "GIF")
    ]
    for file in [*odd_files(), *pictures]:
        data = file.make()
        if len(data) < MAX_BYTES:
            kinds.setdefault(file.name.rpartition(".")[2], []).append((file, data))
    return kinds


def mutated_files(count: int) -> Iterator[tuple[str, str, bytes]]:
    """Name, password and bytes of mutated files, each kind in turn."""
    dice = random.Random(SEED)
    kinds = samples()
    for suffix in itertools.islice(itertools.cycle(sorted(kinds)), count):
        file, data = dice.choice(kinds[suffix])
        yield file.name, file.password, mutate(data, dice)


def read(path: Path, name: str, password: str) -> str:
    """The text of a file, or the reason why there is none."""
    media_type = detect_media_type(path, name)
    pages: list[Page] = []
    try:
        if media_type in ARCHIVES:
            unpack_members(path, "zip" if media_type == ZIP else "tar", ARCHIVE_LIMITS, password, _read_member)
            return "archive"
        read_pages(path, media_type, LIMITS, lambda page, _: pages.append(page), password=password)
        summarize_pages(pages)
    except DocumentRejected as rejected:
        return rejected.message
    return "\n".join(page.text for page in pages)


def _read_member(number: int, name: str, source: MemberBytes) -> None:
    try:
        while source.read(65536):
            pass
    except MemberSkipped:
        pass


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=[pytest.mark.slow_fault, pytest.mark.timeout(3600)])])
def test_a_mutated_file_ends_with_text_or_a_reason(tmp_path: Path, count: int) -> None:
    path = tmp_path / "original"
    for number, (name, password, data) in enumerate(mutated_files(count)):
        path.write_bytes(data)
        start = time.monotonic()
        result = read(path, name, password)
        assert result.strip(), f"file {number}, from {name}"
        assert str(tmp_path) not in result
        assert "/dev/fd/" not in result
        assert time.monotonic() - start < MAX_SECONDS, f"file {number}, from {name}"


def test_every_kind_is_mutated(tmp_path: Path) -> None:
    path = tmp_path / "original"
    seen = set()
    for file, data in itertools.chain.from_iterable(samples().values()):
        path.write_bytes(data)
        seen.add(detect_media_type(path, file.name))
    assert set(READERS_BY_MEDIA_TYPE) <= seen
