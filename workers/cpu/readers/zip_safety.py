"""Zip safety: limits on what Office files and e-books unpack to, checked before anything is unpacked."""

import zipfile

from workers.cpu.readers.reader import ReadError, Source

MAX_BYTES = 512 * 1024 * 1024
MAX_MEMBERS = 20_000
MAX_RATIO = 200
# A member that unpacks to less than this is harmless, whatever its compression ratio.
HARMLESS_BYTES = 16 * 1024 * 1024


def check_zip(source: Source) -> None:
    """Reject a file whose members would fill the memory. The sizes in its directory can be trusted: zipfile never unpacks more.

    Raises ReadError, or zipfile.BadZipFile if the file is not a zip.
    """
    with zipfile.ZipFile(source) as packed:
        members = packed.infolist()
        if any(member.flag_bits & 1 for member in members):
            raise ReadError("encrypted", "Parts of the file are encrypted. Save a copy without a password and upload that.")
        if len(members) > MAX_MEMBERS:
            raise ReadError("too_large", f"The file has {len(members)} parts; the limit is {MAX_MEMBERS}.")
        size = sum(member.file_size for member in members)
        bombs = [m for m in members if m.file_size > HARMLESS_BYTES and m.file_size > MAX_RATIO * max(1, m.compress_size)]
    if size > MAX_BYTES or bombs:
        detail = f"; one part unpacks to more than {MAX_RATIO} times its size" if bombs else ""
        raise ReadError("too_large", f"The file unpacks to {size} bytes; the limit is {MAX_BYTES}{detail}.")
    if not isinstance(source, str):
        source.seek(0)
