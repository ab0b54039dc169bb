"""Outlook messages, and the container that they are."""

import itertools
import struct
from collections.abc import Iterator

from testing.reading_samples.package import Sample


def outlook(streams: dict[str, bytes], attachments: tuple[dict[str, bytes], ...] = ()) -> bytes:
    """A message with these properties, by their numbers and types, and attachments with theirs."""

    def storage(streams: dict[str, bytes], header: bytes) -> dict[str, object]:
        sizes = ((int(tag, 16), len(data) + 2 * tag.endswith("1F")) for tag, data in streams.items())
        properties = header + b"".join(struct.pack("<4I", tag, 6, size, 0) for tag, size in sizes)
        return {**{f"__substg1.0_{tag}": data for tag, data in streams.items()}, "__properties_version1.0": properties}

    message = storage(streams, bytes(16) + struct.pack("<II", 0, len(attachments)) + bytes(8))
    for number, attachment in enumerate(attachments):
        message[f"__attach_version1.0_#{number:08X}"] = storage(attachment, bytes(8))
    names: dict[str, object] = {f"__substg1.0_{stream}": b"" for stream in ("00020102", "00030102", "00040102")}
    return compound_file({**message, "__nameid_version1.0": names})


def compound_file(tree: dict[str, object]) -> bytes:
    """An OLE container of storages (dictionaries) and streams (bytes), each of which is shorter than 4 kB."""
    sector, short, free, end, fat_mark = 512, 64, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
    directory: list[list[object]] = []  # name, type, right, child, start, size
    stored = bytearray()
    chains: list[int] = []

    def add(name: str, content: object) -> int:
        place = len(directory)
        directory.append([name, 2, free, free, end, 0])
        if isinstance(content, dict):
            children = [
                add(child, inner) for child, inner in sorted(content.items(), key=lambda item: (len(item[0]), item[0].upper()))
            ]
            for before, after in itertools.pairwise(children):
                directory[before][2] = after
            directory[place][1], directory[place][3] = 1, children[0] if children else free
        elif isinstance(content, bytes) and content:
            count = -(-len(content) // short)
            directory[place][4:] = [len(chains), len(content)]
            chains.extend([*range(len(chains) + 1, len(chains) + count), end])
            stored.extend(content.ljust(count * short, b"\0"))
        return place

    add("Root Entry", tree)
    directory[0][1], directory[0][4], directory[0][5] = 5, 0, len(stored)
    entries = b"".join(
        str(name).encode("utf-16-le").ljust(64, b"\0")
        + struct.pack("<HBB3I", len(str(name)) * 2 + 2, kind, 1, free, right, child)
        + bytes(36)
        + struct.pack("<IQ", start, size)
        for name, kind, right, child, start, size in directory
    )
    short_fat = struct.pack(f"<{len(chains)}I", *chains)
    data = bytearray()
    fat: list[int] = []
    starts: list[int] = []
    for content in (bytes(stored), entries, short_fat.ljust(-(-len(short_fat) // sector) * sector, b"\xff")):
        count = -(-len(content) // sector)
        starts.append(len(fat))
        fat += [*range(len(fat) + 1, len(fat) + count), end]
        data += content.ljust(count * sector, b"\0")
    fat.append(fat_mark)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<9I", 0, 1, starts[1], 0, 4096, starts[2], -(-len(short_fat) // sector), end, 0)
    header += struct.pack("<109I", len(fat) - 1, *[free] * 108)
    return header + data + struct.pack("<128I", *fat, *[free] * (128 - len(fat)))


def outlook_samples() -> Iterator[Sample]:
    def wide(text: str) -> bytes:
        return text.encode("utf-16-le")

    basic = {"001A001F": wide("IPM.Note"), "0037001F": wide("Boiler"), "0C1A001F": wide("Ada")}
    yield Sample("plain.msg", lambda: outlook({**basic, "1000001F": wide("It arrives on Tuesday. Größe.")}),
                 must=("Subject: Boiler", "From: Ada", "It arrives on Tuesday. Größe."))  # fmt: skip
    yield Sample("html.msg", lambda: outlook({**basic, "10130102": b"<html><p>Only <b>HTML</b> here.</p></html>"}),
                 must=("Only HTML here.",))  # fmt: skip
    yield Sample(
        "both-say-something.msg",
        lambda: outlook(
            {**basic, "1000001F": wide("Dear Bob, regards Ada"), "1013001F": wide("<p>Dear Bob,</p><p>Torque is 47 Nm.</p>")}
        ),
        must=("regards Ada", "Torque is 47 Nm."),
        count={"Bob": 1},
    )
    rtf = b"{\\rtf1\\ansi Only rich text.\\par}"
    yield Sample("rtf.msg", lambda: outlook({**basic, "10090102": struct.pack("<II4sI", len(rtf) + 12, len(rtf), b"MELA", 0) + rtf}),
                 must=("Only rich text.",))  # fmt: skip
    yield Sample(
        "attached.msg",
        lambda: outlook(
            {**basic, "1000001F": wide("See the files.")},
            ({"3707001F": wide("a.pdf"), "37010102": b"%PDF"}, {"3707001F": wide("b.txt"), "37010102": b"Words in a file."}),
        ),
        must=("See the files.", "Words in a file."),
        problem="a.pdf",
    )
