"""The child process that opens a hostile archive and writes its members to standard output, one after the other.

It limits itself before it opens anything, as ``parse_child`` does. Of each member it writes a JSON line, then its bytes in
blocks, each behind a line with its length:

    {"member": 0, "name": "letters/1.txt"}
    {"block": 65536}                        and so many bytes; as often as needed
    {"done": 0}                             or {"skipped": 0, "reason": "…"}: nothing of it counts

and at the end {"end": "read"}, or {"end": "too_large" | "encrypted" | "unreadable", "reason": "…"}.
"""

import json
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from workers.cpu.parsing.limits import restrict
from workers.cpu.readers.reader import ReadError

BLOCK = 256 * 1024
HARMLESS = 16 * 1024 * 1024
"""An archive that unpacks to less than this is no bomb, however well it packs."""

Member = tuple[str, Callable[[], IO[bytes] | None], str]
"""Name, how it is opened, and why it is left out, or ""."""


def tell(**line: object) -> None:
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")


def run(order: dict[str, Any]) -> None:
    """Write all members. Raises Rejected, or whatever the library raises on opening."""
    members = _zip_members(order) if order["kind"] == "zip" else _tar_members(order)
    total = 0
    for number, (name, opened, why) in enumerate(members):
        if number >= order["max_members"]:
            raise _too_many(order)
        tell(member=number, name=name)
        if ".." in name.replace("\\", "/").split("/"):
            why = why or "its name climbs out of the archive"
        try:
            source = None if why else opened()
            while source is not None and (block := source.read(BLOCK)):
                total += len(block)
                _check_size(total, order)
                tell(block=len(block))
                sys.stdout.buffer.write(block)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError) as error:
            why = f"it cannot be unpacked: {error}"[:200]
        if why:
            tell(skipped=number, reason=why)
        else:
            tell(done=number)
        sys.stdout.buffer.flush()
    tell(end="read")


def _zip_members(order: dict[str, Any]) -> Iterator[Member]:
    packed = zipfile.ZipFile(order["path"])
    members = [member for member in packed.infolist() if not member.is_dir()]
    if len(members) > order["max_members"]:
        raise _too_many(order)
    # Known beforehand, so that nothing of a bomb is taken. The sizes may be trusted: zipfile unpacks no byte more.
    _check_size(sum(member.file_size for member in members), order)
    password = order["password"].encode() or None
    if members and not password and all(member.flag_bits & 1 for member in members):
        raise ReadError("encrypted", "It opens only with a password. Upload it again with the field `password`.")
    for member in members:
        why = ""
        if member.external_attr >> 28 == 0o12:
            why = "it is a link"
        elif member.file_size > order["max_member_bytes"]:
            why = f"it is larger than {order['max_member_bytes']} bytes, the most that one document may have"
        elif member.flag_bits & 1 and not password:
            why = "it opens only with a password"
        yield member.filename, lambda member=member: packed.open(member, pwd=password), why  # type: ignore[misc]


def _tar_members(order: dict[str, Any]) -> Iterator[Member]:
    with tarfile.open(order["path"], "r|*") as packed:
        passed_over = 0
        for number, member in enumerate(packed):
            # Folders make no documents, but a million of them would take as long to pass over.
            if number >= 2 * order["max_members"]:
                raise _too_many(order)
            if member.isdir():
                continue
            why = ""
            if not member.isreg():
                why = "it is a link" if member.issym() or member.islnk() else "it is no file"
            elif member.size > order["max_member_bytes"]:
                why = f"it is larger than {order['max_member_bytes']} bytes, the most that one document may have"
            if why:
                # To come to the next member, all of this one is unpacked.
                passed_over += member.size
                _check_size(passed_over, order)
            yield member.name, lambda member=member: packed.extractfile(member), why  # type: ignore[misc]


def _check_size(size: int, order: dict[str, Any]) -> None:
    if size > order["max_bytes"]:
        raise ReadError("too_large", f"It unpacks to more than {order['max_bytes']} bytes (ENGINEHOUSE_MAX_ARCHIVE_BYTES).")
    if size > HARMLESS and size > order["max_ratio"] * order["size"]:
        raise ReadError(
            "too_large", f"It unpacks to more than {order['max_ratio']} times its size (ENGINEHOUSE_MAX_ARCHIVE_RATIO)."
        )


def _too_many(order: dict[str, Any]) -> ReadError:
    return ReadError("too_large", f"It has more than {order['max_members']} members (ENGINEHOUSE_MAX_ARCHIVE_MEMBERS).")


def main() -> None:
    order = json.loads(sys.stdin.buffer.readline())
    restrict(order["memory_bytes"], order["seconds"])
    try:
        run(order)
    except ReadError as rejected:
        tell(end=rejected.end, reason=str(rejected))
    except MemoryError:
        tell(end="too_large", reason=f"Unpacking it takes more than {order['memory_bytes'] // 2**20} MiB of memory.")
    except Exception as error:  # noqa: BLE001 - the top of the process; the parent decides what to make of it
        tell(end="unreadable", reason=f"{type(error).__name__}: {error}"[:300])
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
