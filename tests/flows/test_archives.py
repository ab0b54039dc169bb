"""Archives are unpacked in a child process under limits; hostile members are skipped and hostile archives rejected."""

import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import DocumentRejected
from tests.odd_files import packed_zip
from workers.cpu.archives.archive import ArchiveLimits, MemberBytes, MemberSkipped, unpack_members

LIMITS = ArchiveLimits(
    seconds=20, memory_bytes=512 << 20, max_members=50, max_member_bytes=1 << 20, max_bytes=64 << 20, max_ratio=200
)


def tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as packed:  # type: ignore[call-overload]
        for member, data in members:
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return target.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def unpacked(
    tmp_path: Path, data: bytes, kind: str, limits: ArchiveLimits = LIMITS, password: str = ""
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Contents of complete members, and reasons of skipped ones, by name."""
    path = tmp_path / "original"
    path.write_bytes(data)
    whole: dict[str, bytes] = {}
    skipped: dict[str, str] = {}

    def on_member(number: int, name: str, source: MemberBytes) -> None:
        parts = []
        try:
            while block := source.read(1000):
                parts.append(block)
            whole[name] = b"".join(parts)
        except MemberSkipped as error:
            skipped[name] = str(error)

    unpack_members(path, kind, limits, password, on_member)
    assert {entry.name for entry in tmp_path.iterdir()} == {"original"}
    return whole, skipped


def rejected(tmp_path: Path, data: bytes, kind: str, limits: ArchiveLimits = LIMITS) -> tuple[str, str]:
    with pytest.raises(DocumentRejected) as caught:
        unpacked(tmp_path, data, kind, limits)
    return caught.value.code, caught.value.message


FILES = {"a.txt": b"first", "folder/b.txt": b"second" * 1000, "leer.txt": b"", "ünï/文.txt": b"third"}


def test_members_of_a_zip_are_unpacked_with_their_names(tmp_path: Path) -> None:
    assert unpacked(tmp_path, packed_zip({**FILES, "folder/": b""}), "zip") == (FILES, {})


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_members_of_a_tar_are_unpacked_for_every_compression(tmp_path: Path, mode: str) -> None:
    members = [(tarfile.TarInfo(name), data) for name, data in FILES.items()]
    assert unpacked(tmp_path, tar(*members, mode=mode), "tar") == (FILES, {})


def test_links_devices_and_names_outside_the_archive_are_skipped_with_a_reason(tmp_path: Path) -> None:
    data = tar(
        (link("soft", "/etc/passwd"), b""),
        (link("hard", "a.txt", tarfile.LNKTYPE), b""),
        (link("device", "", tarfile.CHRTYPE), b""),
        (tarfile.TarInfo("../../up.txt"), b"climbs"),
        (tarfile.TarInfo("/absolute.txt"), b"a name is only a name"),
    )
    whole, skipped = unpacked(tmp_path, data, "tar")
    assert whole == {"/absolute.txt": b"a name is only a name"}
    assert skipped == {
        "soft": "it is a link",
        "hard": "it is a link",
        "device": "it is not a file",
        "../../up.txt": "its name points outside the archive",
    }


def test_links_in_a_zip_are_skipped(tmp_path: Path) -> None:
    soft, target = zipfile.ZipInfo("soft"), io.BytesIO()
    soft.external_attr = 0o120777 << 16
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr(soft, "/etc/passwd")
        packed.writestr("..\\up.txt", "climbs")
    whole, skipped = unpacked(tmp_path, target.getvalue(), "zip")
    assert (whole, sorted(skipped)) == ({}, ["..\\up.txt", "soft"])


def test_a_damaged_member_is_skipped_and_the_others_are_unpacked(tmp_path: Path) -> None:
    data = packed_zip({"a.txt": b"neighbour", "b.txt": b"spoil me" * 20, "c.txt": b"neighbour"}, zipfile.ZIP_STORED)
    whole, skipped = unpacked(tmp_path, data.replace(b"spoil me", b"SPOIL ME"), "zip")
    assert sorted(whole) == ["a.txt", "c.txt"]
    assert "cannot be unpacked" in skipped["b.txt"]


def test_a_member_above_the_document_limit_is_skipped(tmp_path: Path) -> None:
    for data, kind in (
        (packed_zip({"big": bytes(2 << 20), "small": b"s"}, zipfile.ZIP_STORED), "zip"),
        (tar((tarfile.TarInfo("big"), bytes(2 << 20)), (tarfile.TarInfo("small"), b"s")), "tar"),
    ):
        whole, skipped = unpacked(tmp_path, data, kind)
        assert (whole, "1048576 bytes" in skipped["big"]) == ({"small": b"s"}, True)


def lying_zip() -> bytes:
    """A zip whose directory gives a member of 40 MB a size of five bytes."""
    data = bytearray(packed_zip({"a.txt": bytes(40 << 20)}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 5)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: packed_zip({str(number): b"" for number in range(51)}), "zip", "50 members"),
        (lambda: tar(*((tarfile.TarInfo(str(number)), b"") for number in range(51))), "tar", "50 members"),
        (lambda: packed_zip({str(number): bytes(1 << 20) for number in range(30)}), "zip", "200 times"),
        (lambda: tar(*((tarfile.TarInfo(str(n)), bytes(1 << 20)) for n in range(30)), mode="w:xz"), "tar", "200 times"),
        (lambda: tar(*((folder(str(number)), b"") for number in range(101))), "tar", "50 members"),
        (lambda: tar(*((tarfile.TarInfo(str(n)), bytes(3 << 20)) for n in range(8)), mode="w:xz"), "tar", "200 times"),
    ],
)
def test_archive_bombs_are_rejected(tmp_path: Path, make: Callable[[], bytes], kind: str, says: str) -> None:
    code, reason = rejected(tmp_path, make(), kind)
    assert code == "too_large"
    assert says in reason


def test_an_archive_above_the_byte_limit_is_rejected_before_unpacking(tmp_path: Path) -> None:
    data = packed_zip({"a": bytes(900_000), "b": bytes(900_000)}, zipfile.ZIP_STORED)
    assert rejected(tmp_path, data, "zip", replace(LIMITS, max_bytes=1_000_000))[0] == "too_large"


def test_a_zip_with_a_false_size_yields_no_extra_bytes(tmp_path: Path) -> None:
    whole, skipped = unpacked(tmp_path, lying_zip(), "zip")
    assert whole == {}
    assert "cannot be unpacked" in skipped["a.txt"]


@pytest.mark.parametrize(
    ("data", "kind"), [(packed_zip(FILES)[:-60], "zip"), (b"PK\x03\x04nothing", "zip"), (b"x" * 2000, "tar")]
)
def test_a_broken_archive_is_rejected_with_a_reason(tmp_path: Path, data: bytes, kind: str) -> None:
    code, reason = rejected(tmp_path, data, kind)
    assert code == "failed"
    assert "could not be unpacked" in reason


def test_unpacking_is_stopped_at_the_memory_limit(tmp_path: Path) -> None:
    path = tmp_path / "original"
    # Unpacking xz needs a dictionary of 8 MiB, so it cannot get along with what the process has already.
    path.write_bytes(tar((tarfile.TarInfo("a.txt"), random.Random(1).randbytes(1 << 20)), mode="w:xz"))
    with pytest.raises(DocumentRejected, match="1 MiB of memory"):
        unpack_members(path, "tar", replace(LIMITS, memory_bytes=1 << 20), "", lambda number, name, source: None)
