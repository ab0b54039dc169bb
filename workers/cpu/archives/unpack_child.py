"""Child process that opens one untrusted archive and writes its members to standard output, one after the other.

It closes its sandbox before it opens the file, as ``parse_child`` does. For each member it writes these JSON lines,
each block line being followed by that number of bytes:

    {"member": 0, "name": "letters/1.txt"}
    {"block": 65536}                        repeated as needed
    {"done": 0}                             or {"skipped": 0, "reason": "…"}: discard the blocks of this member

and at the end {"end": "read"}, or {"end": "too_large" | "encrypted" | "unreadable", "reason": "…"}.
"""

import json
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any

from shared.documents.text_encoding import OF_PAIRS, count_oddities, decode_text
from workers.cpu.readers.reader import ReadError
from workers.cpu.sandbox.sandbox import close_sandbox

BLOCK = 256 * 1024
HARMLESS_BYTES = 16 * 1024 * 1024
"""An archive that unpacks to less than this is harmless, whatever its compression ratio."""

_UTF8_FLAG, _UNICODE_PATH = 0x800, 0x7075
_SIDE_FILES = (".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".localized", "icon\r")

Member = tuple[str, Callable[[], IO[bytes] | None], str]
"""Name, function that opens it, and the reason to skip it or ""."""


def write_line(**fields: object) -> None:
    sys.stdout.buffer.write(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")


def write_members(request: dict[str, Any]) -> None:
    """Write all members. Raises ReadError, or whatever the library raises when it opens the archive."""
    members = _zip_members(request) if request["format"] == "zip" else _tar_members(request)
    total = 0
    for number, (name, open_member, skip_reason) in enumerate(members):
        if number >= request["max_members"]:
            raise _too_many(request)
        write_line(member=number, name=name)
        skip_reason = skip_reason or _side_file_reason(name)
        if ".." in name.replace("\\", "/").split("/"):
            skip_reason = skip_reason or "its name points outside the archive"
        try:
            source = None if skip_reason else open_member()
            while source is not None and (block := source.read(BLOCK)):
                total += len(block)
                _check_size(total, request)
                write_line(block=len(block))
                sys.stdout.buffer.write(block)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError) as error:
            skip_reason = f"it cannot be unpacked: {error}"[:200]
        if skip_reason:
            write_line(skipped=number, reason=skip_reason)
        else:
            write_line(done=number)
        sys.stdout.buffer.flush()
    write_line(end="read")


def _zip_members(request: dict[str, Any]) -> Iterator[Member]:
    archive = zipfile.ZipFile(request["path"])
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > request["max_members"]:
        raise _too_many(request)
    # Checked before any member is unpacked. The sizes can be trusted: zipfile never unpacks more.
    _check_size(sum(member.file_size for member in members), request)
    password = request["password"].encode() or None
    if members and not password and all(member.flag_bits & 1 for member in members):
        raise ReadError("encrypted", "The archive needs a password. Upload it again with the field `password`.")
    names = iter(member_names(members))
    for member in members:
        skip_reason = ""
        if member.external_attr >> 28 == 0o12:
            skip_reason = "it is a link"
        elif member.file_size > request["max_member_bytes"]:
            skip_reason = f"it is larger than {request['max_member_bytes']} bytes, the limit for a document"
        elif member.flag_bits & 1 and not password:
            skip_reason = "it needs a password"
        yield next(names), lambda member=member: archive.open(member, pwd=password), skip_reason  # type: ignore[misc]


def _tar_name(name: str) -> str:
    """A name in UTF-8 or, where it is not, in the code page that its bytes look like."""
    if name.isprintable():
        return name
    data = name.encode("utf-8", "surrogateescape")
    return data.decode(_name_codec([data]), "replace")


def member_names(members: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names of a zip's members, decoded.

    A name is in UTF-8 if its flag says so, or if a Unicode field beside it does. Otherwise it should be in code page 437, but
    programs write it in the code page of their machine. All names of a zip are in the same one, so it is guessed from all of them
    together: three letters of a name alone are too few.
    """
    names = [_unicode_name(member) for member in members]
    # zipfile has decoded the other names as code page 437, which has a character for every byte.
    unknown = {
        member.filename: member.orig_filename.encode("cp437")
        for member, name in zip(members, names, strict=True)
        if name is None and not member.filename.isascii()
    }
    codec = _name_codec(list(unknown.values()))
    decoded = {name: data.decode(codec, "replace").replace("\\", "/") for name, data in unknown.items()}
    return [name or decoded.get(member.filename, member.filename) for member, name in zip(members, names, strict=True)]


def _unicode_name(member: zipfile.ZipInfo) -> str | None:
    if member.flag_bits & _UTF8_FLAG:
        return member.filename
    extra = member.extra
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        # The field has a version, the checksum of the plain name that it belongs to, and the name in UTF-8.
        if kind == _UNICODE_PATH and length > 5:
            checksum = int.from_bytes(extra[5:9], "little")
            with suppress(UnicodeError):
                if checksum == zlib.crc32(member.orig_filename.encode("cp437")):
                    return extra[9 : 4 + length].decode("utf-8")
        extra = extra[4 + length :]
    return None


def _name_codec(names: list[bytes]) -> str:
    """The code page of the names that are not in Unicode: a Unicode one, one of East Asia or Cyrillic, or else 437."""
    joined = b"\n".join(names)
    decoded = decode_text(joined) if names else None
    if decoded is None:
        return "cp437"
    if decoded.codec == "utf-8":
        return "utf-8"
    if decoded.codec in OF_PAIRS or sum(character.isalpha() for character in decoded.text if character > "\u0370") > 2:
        return decoded.codec
    return min(("cp437", "cp850", "cp1252", decoded.codec), key=lambda codec: _strange_signs(joined.decode(codec, "replace")))


def _strange_signs(text: str) -> int:
    signs = sum(not character.isascii() and (not character.isalpha() or character > "\u0370") for character in text)
    return signs + count_oddities(text[:1000])


def _side_file_reason(name: str) -> str:
    """Why a file that a desktop keeps beside the user's own is skipped, or ""."""
    *folders, file_name = name.replace("\\", "/").split("/")
    if "__MACOSX" in folders or file_name.startswith("._") or file_name.lower() in _SIDE_FILES:
        return "it is a file that macOS or Windows keeps for itself"
    return ""


def _tar_members(request: dict[str, Any]) -> Iterator[Member]:
    with tarfile.open(request["path"], "r|*") as archive:
        skipped_bytes = 0
        for number, member in enumerate(archive):
            # Folders do not become documents, but skipping a million of them takes time too.
            if number >= 2 * request["max_members"]:
                raise _too_many(request)
            if member.isdir():
                continue
            skip_reason = ""
            if not member.isreg():
                skip_reason = "it is a link" if member.issym() or member.islnk() else "it is not a file"
            elif member.size > request["max_member_bytes"]:
                skip_reason = f"it is larger than {request['max_member_bytes']} bytes, the limit for a document"
            if skip_reason:
                # To reach the next member, tarfile unpacks this one.
                skipped_bytes += member.size
                _check_size(skipped_bytes, request)
            yield _tar_name(member.name), lambda member=member: archive.extractfile(member), skip_reason  # type: ignore[misc]


def _check_size(size: int, request: dict[str, Any]) -> None:
    if size > request["max_bytes"]:
        raise ReadError(
            "too_large", f"The archive unpacks to more than {request['max_bytes']} bytes (ENGINEHOUSE_MAX_ARCHIVE_BYTES)."
        )
    if size > HARMLESS_BYTES and size > request["max_ratio"] * request["size"]:
        raise ReadError(
            "too_large",
            f"The archive unpacks to more than {request['max_ratio']} times its size (ENGINEHOUSE_MAX_ARCHIVE_RATIO).",
        )


def _too_many(request: dict[str, Any]) -> ReadError:
    return ReadError(
        "too_large", f"The archive has more than {request['max_members']} members (ENGINEHOUSE_MAX_ARCHIVE_MEMBERS)."
    )


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    close_sandbox(request["memory_bytes"], request["seconds"], [request["descriptor"]])
    try:
        write_members(request)
    except ReadError as error:
        write_line(end=error.code, reason=str(error))
    except MemoryError:
        write_line(
            end="too_large", reason=f"Unpacking the archive needs more than {request['memory_bytes'] // 2**20} MiB of memory."
        )
    except Exception as error:  # noqa: BLE001 - the top of the process; the parent decides what the error means
        write_line(end="unreadable", reason=f"{type(error).__name__}: {error}"[:300])
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
