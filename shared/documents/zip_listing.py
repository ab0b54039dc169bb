"""Names of a zip's members, read from its central directory, and the beginning of one of them.

It reads at most a few megabytes and unpacks at most one, so the API can use it on untrusted files.
"""

import struct
import zlib
from pathlib import Path

_END = struct.Struct("<4s4H2LH")
_MEMBER = struct.Struct("<4s6H3L5H2L")
_HEADER = struct.Struct("<4s5H3L2H")
_MAX_COMMENT_BYTES = 65_535
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
_MAX_MEMBER_BYTES = 1024 * 1024


def list_zip_members(path: Path) -> dict[str, int] | None:
    """Names of the members in the first 4 MiB of the directory, with the offsets of their headers; None if it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as source:
        source.seek(max(0, size - _END.size - _MAX_COMMENT_BYTES))
        tail = source.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            return None
        *_, length, start, _comment = _END.unpack_from(tail, at)
        if start >= size:  # zip64, or an invalid offset
            return None
        source.seek(start)
        listing = source.read(min(length, _MAX_DIRECTORY_BYTES))
    names, at = dict[str, int](), 0
    while at + _MEMBER.size <= len(listing):
        fields = _MEMBER.unpack_from(listing, at)
        if fields[0] != b"PK\x01\x02":
            return None
        name, extra, comment = fields[10:13]
        names[listing[at + _MEMBER.size : at + _MEMBER.size + name].decode("utf-8", "replace")] = fields[16]
        at += _MEMBER.size + name + extra + comment
    return names


def read_zip_member(path: Path, offset: int) -> bytes:
    """The first mebibyte of the member whose header is at ``offset``; empty if it cannot be unpacked."""
    with path.open("rb") as source:
        source.seek(offset)
        header = source.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(b"PK\x03\x04"):
            return b""
        *_, method, _time, _date, _crc, packed_size, _size, name, extra = _HEADER.unpack(header)
        source.seek(name + extra, 1)
        packed = source.read(min(packed_size or _MAX_MEMBER_BYTES, _MAX_MEMBER_BYTES))
    if method == 0:
        return packed
    try:
        return zlib.decompressobj(-15).decompress(packed, _MAX_MEMBER_BYTES) if method == 8 else b""
    except zlib.error:
        return b""
