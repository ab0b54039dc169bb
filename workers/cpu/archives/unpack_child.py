"""Child process that opens one untrusted archive and writes its members to standard output, one after the other.

It closes its sandbox before it opens the file, as ``parse_child`` does. For each member it writes these JSON lines,
each block line being followed by that number of bytes:

    {"member": 0, "name": "letters/1.txt"}
    {"block": 65536}                        repeated as needed
    {"done": 0}                             or {"skipped": 0, "reason": "…"}: discard the blocks of this member

and at the end {"end": "read"}, or {"end": "too_large" | "encrypted" | "unreadable", "reason": "…"}.
"""

import json
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from workers.cpu.readers.reader import ReadError
from workers.cpu.sandbox.sandbox import close_sandbox

BLOCK = 256 * 1024
HARMLESS_BYTES = 16 * 1024 * 1024
"""An archive that unpacks to less than this is harmless, whatever its compression ratio."""

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
    for member in members:
        skip_reason = ""
        if member.external_attr >> 28 == 0o12:
            skip_reason = "it is a link"
        elif member.file_size > request["max_member_bytes"]:
            skip_reason = f"it is larger than {request['max_member_bytes']} bytes, the limit for a document"
        elif member.flag_bits & 1 and not password:
            skip_reason = "it needs a password"
        yield member.filename, lambda member=member: archive.open(member, pwd=password), skip_reason  # type: ignore[misc]


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
            yield member.name, lambda member=member: archive.extractfile(member), skip_reason  # type: ignore[misc]


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
