"""Names of a zip's members, read from its central directory.

It reads at most a few megabytes and unpacks nothing, so the API can use it on untrusted files.
"""

import struct
from pathlib import Path

_END = struct.Struct("<4s4H2LH")
_MEMBER = struct.Struct("<4s6H3L5H2L")
_MAX_COMMENT_BYTES = 65_535
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024


def list_zip_members(path: Path) -> set[str] | None:
    """Names of the members in the first 4 MiB of the directory; None if the directory cannot be read."""
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
    names, at = set(), 0
    while at + _MEMBER.size <= len(listing):
        fields = _MEMBER.unpack_from(listing, at)
        if fields[0] != b"PK\x01\x02":
            return None
        name, extra, comment = fields[10:13]
        names.add(listing[at + _MEMBER.size : at + _MEMBER.size + name].decode("utf-8", "replace"))
        at += _MEMBER.size + name + extra + comment
    return names
