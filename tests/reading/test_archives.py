"""Archives: members keep their names, whatever code page they are in, and files that desktops add are skipped."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from workers.cpu.archives.archive import ArchiveLimits, MemberBytes, MemberSkipped, unpack_members
from workers.cpu.archives.unpack import DistinctNames
from workers.cpu.archives.unpack_child import member_names

LIMITS = ArchiveLimits(seconds=60, memory_bytes=2**29, max_members=100, max_member_bytes=2**20, max_bytes=2**24, max_ratio=200)


def packed_zip(names: list[str], codec: str) -> bytes:
    """A zip whose names are stored in a code page, as other programs do; zipfile itself writes only ASCII and UTF-8."""
    target = io.BytesIO()
    stored = [name.encode(codec) for name in names]
    with zipfile.ZipFile(target, "w") as packed:
        for number, name in enumerate(stored):
            packed.writestr(f"{number:03}".ljust(len(name), "_"), f"text {number}")
    data = target.getvalue()
    for number, name in enumerate(stored):
        data = data.replace(f"{number:03}".ljust(len(name), "_").encode(), name)
    return data


@pytest.mark.parametrize(
    ("codec", "names"),
    [
        ("cp437", ["Müller.txt"]),
        ("cp437", ["résumé.doc", "naïve.txt"]),
        ("cp437", ["Übersicht.pdf"]),
        ("cp850", ["Müller.txt", "Größe.txt"]),
        ("cp1252", ["Müller.txt"]),
        ("cp1252", ["résumé.doc", "naïve.txt"]),
        ("cp852", ["Łódź.txt"]),
        ("cp866", ["Привет.txt"]),
        ("cp1251", ["Договор.txt"]),
        ("cp932", ["議事録.txt"]),
        ("cp932", ["会議.txt", "資料/見積書.txt"]),
        ("gbk", ["合同.txt"]),
        ("big5", ["合約書.txt"]),
        ("cp949", ["회의록.txt"]),
        ("utf-8", ["café.txt"]),
        ("ascii", ["plain.txt"]),
    ],
)
def test_names_are_decoded_by_the_code_page_that_they_are_in(codec: str, names: list[str]) -> None:
    with zipfile.ZipFile(io.BytesIO(packed_zip(names, codec))) as archive:
        assert member_names(archive.infolist()) == names


def test_names_that_are_marked_as_unicode_are_not_guessed() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr("合同ü.txt", "x")
    with zipfile.ZipFile(target) as archive:
        assert member_names(archive.infolist()) == ["合同ü.txt"]


def unpack(path: Path) -> tuple[dict[str, str], list[str]]:
    texts: dict[str, str] = {}
    skipped: list[str] = []

    def on_member(number: int, name: str, source: MemberBytes) -> None:
        try:
            data = b""
            while block := source.read(65536):
                data += block
            texts[name] = data.decode()
        except MemberSkipped:
            skipped.append(name)

    unpack_members(path, "zip", LIMITS, "", on_member)
    return texts, skipped


def test_what_desktops_keep_beside_files_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "original"
    side = ["__MACOSX/a/._one.txt", "a/._one.txt", "a/.DS_Store", "a/Thumbs.db", "desktop.ini"]
    with zipfile.ZipFile(path, "w") as packed:
        for name in ["a/one.txt", *side, "Note.txt", "note.txt"]:
            packed.writestr(name, name)
    texts, skipped = unpack(path)
    assert texts == {name: name for name in ("a/one.txt", "Note.txt", "note.txt")}
    assert skipped == side


def test_members_with_one_name_are_kept_apart() -> None:
    names = DistinctNames()
    given: list[Any] = ["a/b.txt", "a/b.txt", "a/b (2).txt", "a/b.txt", "A/b.txt", "x" * 300, "x" * 300, "", "cafe\u0301"]
    taken = [names.take(name) for name in given]
    assert taken[:5] == ["a/b.txt", "a/b (2).txt", "a/b (2) (2).txt", "a/b (3).txt", "A/b.txt"]
    assert taken[5:7] == ["x" * 300, "x" * 300 + " (2)"], "names are kept whole"
    assert taken[7:] == ["unnamed", "caf\u00e9"]
    assert len(set(taken)) == len(taken)
    assert json.dumps([DistinctNames().take(name) for name in given[:1]]) == '["a/b.txt"]'


def test_many_members_with_one_name_take_linear_time() -> None:
    names = DistinctNames()
    assert len({names.take("a.txt") for _ in range(20_000)}) == 20_000
