"""Pictures of pages: rendered from a PDF by pdfium, or the frames of an image file, decoded by Pillow.

Both yield arrays of height, width, and the channels red, green and blue, no larger than OCR can use.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from shared.documents.media_types import MediaType
from workers.cpu.readers.picture import check_pixels, open_picture
from workers.cpu.readers.reader import password_error

RESOLUTION = 200
"""Pixels per inch of a rendered page. Below, small print gets worse; above, time and memory grow for nothing."""

MAX_SIDE = 3400
"""Longest side of a picture, which is that of an A3 page. Larger ones are reduced."""

MIN_SIDE = 8
"""A picture with a shorter side has no room for text."""

TALL, PIECE = 3.0, 2.0
"""A picture this many times as high as it is wide, such as a receipt, is read in pieces of at most PIECE times its width."""

MIN_PICTURE_SHARE, MIN_PICTURE_POINTS, MAX_PICTURES = 0.01, 24, 20
"""Pictures inside a page are read if they cover this share of it and both sides have this many points; at most so many."""


class PagePart(NamedTuple):
    """A picture of a part of a page: where the part begins, and its size, as fractions of the page."""

    image: Any
    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0


class Pictures(Protocol):
    """The pictures of a file, by page."""

    def whole_page(self, number: int) -> Iterator[PagePart]: ...

    def inside_page(self, number: int) -> Iterator[PagePart]: ...

    def named(self, name: str) -> Iterator[PagePart]: ...


class PdfPictures:
    """Pages of a PDF."""

    def __init__(self, path: str, password: str) -> None:
        import pypdfium2

        self._raw: Any = pypdfium2.raw
        try:
            self._document = pypdfium2.PdfDocument(path, password=password or None)
        except pypdfium2.PdfiumError as error:
            if error.err_code == self._raw.FPDF_ERR_PASSWORD:
                raise password_error(password) from error
            raise

    def whole_page(self, number: int) -> Iterator[PagePart]:
        page = self._document[number - 1]
        try:
            width, height = page.get_size()
            yield from cut_tall_picture(PagePart(self._render(page, width, height)))
        finally:
            page.close()

    def inside_page(self, number: int) -> Iterator[PagePart]:
        """Pictures on a page that has text, from top to bottom, as the page shows them."""
        page = self._document[number - 1]
        try:
            width, height = page.get_size()
            for left, bottom, right, top in self._picture_areas(page, width, height):
                crop = (left, bottom, width - right, height - top)
                image = self._render(page, right - left, top - bottom, crop)
                area = left / width, 1 - top / height, (right - left) / width, (top - bottom) / height
                yield from cut_tall_picture(PagePart(image, *area))
        finally:
            page.close()

    def named(self, name: str) -> Iterator[PagePart]:
        return iter(())

    def _render(self, page: Any, width: float, height: float, crop: tuple[float, float, float, float] = (0, 0, 0, 0)) -> Any:
        scale = min(RESOLUTION / 72, MAX_SIDE / max(width, height, 1.0))
        bitmap = page.render(scale=scale, crop=crop, rev_byteorder=True, optimize_mode=None)
        try:
            return bitmap.to_numpy()[:, :, :3].copy()
        finally:
            bitmap.close()

    def _picture_areas(self, page: Any, width: float, height: float) -> list[tuple[float, float, float, float]]:
        if page.get_rotation() % 360:  # the boxes of objects are those of the page before it is turned
            return []
        areas: list[tuple[float, float, float, float]] = []
        for item in page.get_objects(filter=[self._raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
            left, bottom, right, top = item.get_bounds()
            area = max(0.0, left), max(0.0, bottom), min(width, right), min(height, top)
            across, along = area[2] - area[0], area[3] - area[1]
            if min(across, along) >= MIN_PICTURE_POINTS and across * along >= MIN_PICTURE_SHARE * width * height:
                areas.append(area)
        return sorted(dict.fromkeys(areas), key=lambda area: -area[3])[:MAX_PICTURES]


class FilePictures:
    """Frames of an image file. Only those of TIFF are pages; of an animation, the first frame is read."""

    def __init__(self, path: str, media_type: MediaType, max_pixels: int) -> None:
        self._picture = open_picture(path, media_type)
        self._max_pixels = max_pixels

    def whole_page(self, number: int) -> Iterator[PagePart]:
        self._picture.seek(number - 1)
        check_pixels(self._picture, self._max_pixels, str(number))
        yield from cut_tall_picture(PagePart(decode_picture(self._picture)))

    def inside_page(self, number: int) -> Iterator[PagePart]:
        return iter(())

    def named(self, name: str) -> Iterator[PagePart]:
        return iter(())


def decode_picture(original: Any) -> Any:
    """The pixels of an open picture, as the device shows them that its EXIF data tell to turn it."""
    from PIL import Image, ImageOps

    picture = original
    picture.draft(None, (MAX_SIDE, MAX_SIDE))  # JPEG is decoded at a fraction of its size
    if picture.mode == "P" or "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBA", "RGBa"):
        layered = picture.convert("RGBA")
        picture = Image.new("RGB", layered.size, "white")
        picture.paste(layered, mask=layered.getchannel("A"))
    elif picture.mode in ("F", "I") or picture.mode.startswith("I;"):
        picture = _as_gray(picture)
    if max(picture.size) > MAX_SIDE:
        picture = picture.copy() if picture is original else picture
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX if picture.mode == "1" else Image.Resampling.BICUBIC)
    return np.asarray(ImageOps.exif_transpose(picture if picture.mode == "RGB" else _with_exif(picture.convert("RGB"), original)))


def _with_exif(picture: Any, original: Any) -> Any:
    picture.info.setdefault("exif", original.info.get("exif", b""))
    return picture


def _as_gray(picture: Any) -> Any:
    """Values of more than 8 bits, spread over the range of 8 bits."""
    from PIL import Image

    values = np.asarray(picture).astype(np.float32)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return Image.fromarray(np.nan_to_num((values - low) * (255 / max(high - low, 1e-6))).clip(0, 255).astype(np.uint8))


def cut_tall_picture(part: PagePart) -> Iterator[PagePart]:
    """The picture, or pieces of a tall one, cut where a row shows least."""
    image = part.image
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        return
    if height <= TALL * width:
        yield part
        return

    def piece(start: int, end: int) -> PagePart:
        share = part.height / height
        return PagePart(image[start:end], part.left, part.top + start * share, part.width, (end - start) * share)

    start, length = 0, int(PIECE * width)
    while height - start > length:
        rows = image[start + length * 3 // 4 : start + length].std(axis=(1, 2))
        end = start + length * 3 // 4 + int(rows.argmin())
        yield piece(start, end)
        start = end
    yield piece(start, height)
