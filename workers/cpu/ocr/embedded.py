"""Pictures inside Office files and messages, by the names that the readers of these formats give them.

A picture that cannot be read must not cost the others, so what is wrong with it is a PictureUnreadable, not a ReadError.
"""

import io
from collections.abc import Callable, Iterator
from typing import IO, Any

from shared.documents import media_types
from shared.documents.media_types import MediaType
from workers.cpu.ocr.pictures import PagePart, cut_tall_picture, decode_picture
from workers.cpu.readers.picture import check_pixels, has_room_for_text, open_picture
from workers.cpu.readers.reader import ReadError

MAX_BYTES = 64 * 1024 * 1024
"""Size of a picture, unpacked but not decoded."""


class PictureUnreadable(Exception):
    """A picture that is missing, too large, damaged or of a format that is not read."""


class EmbeddedPictures:
    """The pictures of one file that is not a picture itself. It has none that cover a page."""

    def __init__(self, path: str, media_type: MediaType, password: str, max_pixels: int) -> None:
        self._open = _opener(path, media_type, password)
        self._max_pixels = max_pixels

    def whole_page(self, number: int) -> Iterator[PagePart]:
        return iter(())

    def inside_page(self, number: int) -> Iterator[PagePart]:
        return iter(())

    def named(self, name: str) -> Iterator[PagePart]:
        try:
            with self._open(name) as stream:
                data = stream.read(MAX_BYTES + 1)
        except (KeyError, OSError) as error:
            raise PictureUnreadable("it is not in the file") from error
        if len(data) > MAX_BYTES:
            raise PictureUnreadable(f"it has more than {MAX_BYTES} bytes")
        try:
            picture = open_picture(io.BytesIO(data))
            check_pixels(picture, self._max_pixels, name.rpartition("/")[2])
        except ReadError as error:
            raise PictureUnreadable(str(error)) from error
        if has_room_for_text(picture.size):
            yield from cut_tall_picture(PagePart(decode_picture(picture)))


def _opener(path: str, media_type: MediaType, password: str) -> Callable[[str], IO[bytes]]:
    """What opens a picture by its name. Only the libraries that a format needs are imported."""
    if media_type == media_types.EMAIL:
        from workers.cpu.readers.mail import read_pictures
        from workers.cpu.readers.reader import read_source

        found = read_pictures(read_source(path))
        return lambda name: io.BytesIO(found[name]())
    if media_type == media_types.OUTLOOK:
        import olefile

        from workers.cpu.readers.outlook import open_attachment

        container: Any = olefile.OleFileIO(path)
        return lambda name: open_attachment(container, name)
    from workers.cpu.readers.ooxml import Package

    if media_type == media_types.OLE:
        from workers.cpu.readers.container import decrypt

        return Package(decrypt(path, password)).open
    return Package(path).open
