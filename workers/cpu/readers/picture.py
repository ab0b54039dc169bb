"""Reader of image files. It reads only how many pages there are; their text is read by OCR (``workers/cpu/ocr``)."""

import io
from typing import Any

from shared.documents import media_types
from shared.documents.media_types import MediaType
from workers.cpu.readers.reader import Content, ReadError, Source

_FORMATS = {
    media_types.PNG: "PNG",
    media_types.JPEG: "JPEG",
    media_types.TIFF: "TIFF",
    media_types.WEBP: "WEBP",
    media_types.BMP: "BMP",
    media_types.GIF: "GIF",
}
_NAMES = {name: media_type for media_type, name in _FORMATS.items()}

MIN_SIDE, MIN_LONGER_SIDE = 24, 49
"""Pixels of both sides of a picture inside a file. Smaller ones are bullets, icons and lines, which have no room for a word."""

MAX_ICON_BYTES = 65536
"""Pictures of more bytes are not opened to see whether they are icons."""

_ANIMATED = "is an animation, of which only the first frame was read"


def open_picture(source: Source, media_type: MediaType | None = None) -> Any:
    """Open an image file with the one decoder for its type. Raises ReadError if its header cannot be read."""
    from PIL import Image, UnidentifiedImageError

    # The limit is checked by check_pixels; the library's own only warns.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(source, formats=[_FORMATS[media_type]] if media_type else list(_NAMES))
    except UnidentifiedImageError as error:
        # The library's message names the file by what it is inside the sandbox.
        formats = "of the format that its first bytes name" if media_type else f"one of {', '.join(_NAMES)}"
        raise ReadError("unreadable", f"The picture cannot be opened: it is damaged, or not {formats}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ReadError("unreadable", f"The picture cannot be opened: {error}") from error


def check_pixels(picture: Any, max_pixels: int, name: str) -> None:
    """Raise ReadError if a frame would take too much memory to decode."""
    width, height = picture.size
    if width * height > max_pixels:
        raise ReadError(
            "too_large",
            f"Picture {name} is {width} by {height} pixels; the limit is {max_pixels} pixels in all (ENGINEHOUSE_MAX_PICTURE_PIXELS).",
        )


def has_room_for_text(size: tuple[int, int]) -> bool:
    """Whether a picture of this width and height may show a word."""
    return min(size) >= MIN_SIDE and max(size) >= MIN_LONGER_SIDE


def is_icon(data: bytes) -> bool:
    """Whether this is a picture without room for text, such as one of a signature. Its pixels are not decoded."""
    if len(data) > MAX_ICON_BYTES:
        return False
    try:
        return not has_room_for_text(open_picture(io.BytesIO(data)).size)
    except ReadError:
        return False  # which OCR reports


class PictureReader:
    """Pages of an image file: the frames of a TIFF, or one."""

    name = "picture"

    def __init__(self, source: Source, password: str) -> None:
        picture = open_picture(source)
        # Frames are counted only where they are pages: that takes a look at each of them.
        self.pages = int(picture.n_frames) if picture.format == "TIFF" else 1
        self.title = ""
        self._fault = _ANIMATED if self.pages == 1 and getattr(picture, "is_animated", False) else ""

    def read_page(self, number: int) -> Content:
        return Content("", images=True, fault=self._fault)
