"""Hostile pictures: each ends with its text, or with a reason that names what is wrong with it."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pypdf import PdfWriter

from shared.errors import DocumentRejected
from tests.scans import ScannedDocument, draw_text, encode
from workers.cpu.ocr.pictures import FilePictures, PdfPictures

SENTENCE = "Boilers are inspected in May."


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to have this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")


HOSTILE: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "bomb": (lambda: png(60_000, 60_000), "too_large", "60000 by 60000 pixels"),
    "thin": (lambda: png(1, 100_000), "empty", "OCR found no text"),
    "truncated": (lambda: encode(draw_text(SENTENCE), "JPEG")[:3000], "failed", "truncated"),
    "garbage": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "failed", "cannot be opened"),
    "blank": (lambda: encode(draw_text(), "PNG"), "empty", "OCR found no text"),
}


def read_to_the_end(folder: Path, data: bytes) -> None:
    document = ScannedDocument(folder, data)
    document.read()
    document.summary()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_ends_clearly(tmp_path: Path, name: str) -> None:
    make, code, reason = HOSTILE[name]
    with pytest.raises(DocumentRejected) as rejected:
        read_to_the_end(tmp_path, make())
    assert (rejected.value.code, reason in rejected.value.message) == (code, True), rejected.value.message
    assert "/dev/fd" not in rejected.value.message


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    gif = encode(draw_text(SENTENCE), "GIF", save_all=True, append_images=[draw_text("Second."), draw_text("Third.")])
    document = ScannedDocument(tmp_path, gif)
    assert [page.text for page in document.read()] == [SENTENCE]
    assert [problem.text for problem in document.summary().problems] == [
        "is an animation, of which only the first frame was read"
    ]


@pytest.mark.parametrize("mode", ["CMYK", "CMYK JPEG", "1", "P", "L", "LA", "RGBA", "I;16", "F", "YCbCr"])
def test_pictures_of_all_modes_become_dark_text_on_white(tmp_path: Path, mode: str) -> None:
    plain = draw_text(SENTENCE, width=320, height=110, size=16)
    if mode in ("LA", "RGBA"):  # transparent paper
        picture = plain.convert(mode)
        picture.putalpha(plain.convert("L").point(lambda value: 255 - value))
    elif mode == "I;16":
        picture = plain.convert("I").point(lambda value: value * 200).convert("I;16")
    else:
        picture = plain.convert(mode.removesuffix(" JPEG"))
    path = tmp_path / "picture"
    kind = {"P": "GIF", "CMYK JPEG": "JPEG"}.get(mode, "TIFF")
    path.write_bytes(encode(picture, kind))
    media_type = f"image/{kind.lower()}"
    [(image, *_)] = FilePictures(str(path), media_type, 10**6).whole_page(1)
    assert (image.shape, str(image.dtype)) == ((110, 320, 3), "uint8")
    assert image.mean() > 200
    assert image.min() < 60


def test_a_page_with_a_rotation_is_drawn_as_it_is_shown(tmp_path: Path) -> None:
    path, turned = tmp_path / "scan.pdf", tmp_path / "turned.pdf"
    path.write_bytes(encode(draw_text(SENTENCE), "PDF"))
    writer = PdfWriter(clone_from=path)
    writer.pages[0].rotate(90)
    writer.write(turned)
    [(image, *_)], [(shown, *_)] = (PdfPictures(str(each), "").whole_page(1) for each in (path, turned))
    assert shown.shape == (image.shape[1], image.shape[0], 3)
    assert abs(np.rot90(shown).astype(int) - image).mean() < 1
    assert list(PdfPictures(str(turned), "").inside_page(1)) == []


def test_a_large_picture_is_reduced_and_a_tall_one_is_cut_between_lines(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encode(draw_text(width=9000, height=3000).convert("L"), "PNG"))
    [(image, *_)] = FilePictures(str(path), "image/png", 10**8).whole_page(1)
    assert image.shape == (1133, 3400, 3)
    path.write_bytes(encode(draw_text(*["A line of a receipt."] * 60, width=500, height=3200), "PNG"))
    pieces = [part.image for part in FilePictures(str(path), "image/png", 10**8).whole_page(1)]
    assert sum(len(piece) for piece in pieces) == 3200
    assert len(pieces) == 4
    assert all((piece[0] == 255).all() for piece in pieces)
