"""The names of a zip's members, read from the list at its end and from nowhere else.

Bounded, so that the API can ask it of a file that anybody sent: at most a few megabytes are looked at, nothing is unpacked.
"""

import struct
from pathlib import Path

_END = struct.Struct("<4s4H2LH")
_MEMBER = struct.Struct("<4s6H3L5H2L")
_LONGEST_COMMENT = 65_535
_MOST = 4 * 1024 * 1024


def zip_members(path: Path) -> set[str] | None:
    """The members' names, as many as the first 4 MiB of the list hold; None when there is no list that can be read."""
    size = path.stat().st_size
    with path.open("rb") as source:
        source.seek(max(0, size - _END.size - _LONGEST_COMMENT))
        tail = source.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            return None
        *_, length, start, _comment = _END.unpack_from(tail, at)
        if start >= size:  # a zip64, or a lie
            return None
        source.seek(start)
        listing = source.read(min(length, _MOST))
    names, at = set(), 0
    while at + _MEMBER.size <= len(listing):
        fields = _MEMBER.unpack_from(listing, at)
        if fields[0] != b"PK\x01\x02":
            return None
        name, extra, comment = fields[10:13]
        names.add(listing[at + _MEMBER.size : at + _MEMBER.size + name].decode("utf-8", "replace"))
        at += _MEMBER.size + name + extra + comment
    return names
