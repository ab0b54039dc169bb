"""Zips that office files and books are: what they unpack to is bounded before anything is unpacked."""

import zipfile

from workers.cpu.readers.reader import ReadError, Source

MOST_BYTES = 512 * 1024 * 1024
MOST_MEMBERS = 20_000
MOST_RATIO = 200
# A part that unpacks to less than this does no harm, however well it packs.
HARMLESS = 16 * 1024 * 1024


def check_zip(source: Source) -> None:
    """Refuse a file whose members would fill the memory. Their sizes may be trusted: zipfile unpacks no byte more.

    Raises Rejected, and zipfile.BadZipFile when it is no zip.
    """
    with zipfile.ZipFile(source) as packed:
        members = packed.infolist()
        if any(member.flag_bits & 1 for member in members):
            raise ReadError("encrypted", "Parts of it are encrypted. Save a copy without a password and upload that.")
        if len(members) > MOST_MEMBERS:
            raise ReadError("too_large", f"It is packed from {len(members)} parts; at most {MOST_MEMBERS} are read.")
        size = sum(member.file_size for member in members)
        bombs = [m for m in members if m.file_size > HARMLESS and m.file_size > MOST_RATIO * max(1, m.compress_size)]
    if size > MOST_BYTES or bombs:
        how = f"; one part of it unpacks to more than {MOST_RATIO} times its size" if bombs else ""
        raise ReadError("too_large", f"It unpacks to {size} bytes, and at most {MOST_BYTES} are read{how}.")
    if not isinstance(source, str):
        source.seek(0)
