"""Child process that reads pages of one untrusted file by OCR and writes their text to standard output, one JSON object per line.

It closes its sandbox before it opens the file, and loads the models when it meets the first picture. The lines are:

    {"opened": true}                                                       once, first
    {"loaded": true}                                                       once, when the models are loaded
    {"page": 3, "text": "…", "confidence": 0.98, "fault": "", "boxes": []} for each requested page or picture, in order
    {"page": 4, "text": "", "confidence": 0, "fault": "OSError: …", …}     a page that could not be read
    {"end": "read"}                                                        at the end, or
    {"end": "too_large" | "encrypted" | "unreadable" | "missing", "reason": "…"}

``boxes`` are [start, end, left, top, right, bottom] of lines: their characters in the text, and where they are on the page, in units of
``page_boxes.SCALE``.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from shared.documents import media_types
from shared.documents.media_types import MediaType
from shared.documents.page_boxes import SCALE
from workers.cpu.ocr.engines import OcrEngine, data_folders, load_library, open_engine, use_one_thread
from workers.cpu.ocr.installation import EngineMissing
from workers.cpu.ocr.layout import Place, RecognizedText, find_lines
from workers.cpu.parsing.parse_child import write_line
from workers.cpu.readers.reader import ReadError
from workers.cpu.readers.text_builder import clean_text
from workers.cpu.sandbox.sandbox import close_sandbox

if TYPE_CHECKING:
    from workers.cpu.ocr.pictures import PagePart, Pictures


def write_pages(request: dict[str, Any]) -> None:
    """Read the requested pages and write each. Raises ReadError, EngineMissing, or whatever the library raises that opens the file."""
    from workers.cpu.ocr.embedded import PictureUnreadable

    pictures = _open_pictures(request["path"], request["media_type"], request["password"], request["max_picture_pixels"])

    @cache
    def engine() -> OcrEngine:
        loaded = open_engine(request["engine"], request["languages"], request["languages_named_by"])
        write_line(loaded=True)
        return loaded

    write_line(opened=True)
    for number, inside, picture in request["pages"]:
        text, confidence, fault, boxes = "", 0.0, "", list[tuple[int, ...]]()
        try:
            if not inside and not picture:
                engine()  # first, because the time of a page begins when the models are loaded
            if picture:
                images = pictures.named(picture)
            else:
                images = pictures.inside_page(number) if inside else pictures.whole_page(number)
            found = [result for result in _recognize(images, engine) if result.text.strip()]
            text = clean_text("\n\n".join(result.text for result in found)).strip()[: request["max_page_characters"]]
            lines = find_lines(text, [line for result in found for line in result.lines])
            boxes = [(start, end, *_units(line.place)) for start, end, line in lines if line.place is not None]
            # Long results count for more than labels in small pictures.
            weight = sum(len(result.text) for result in found)
            confidence = sum(result.confidence * len(result.text) for result in found) / weight if weight else 0.0
        except (MemoryError, ReadError, EngineMissing):
            raise
        except PictureUnreadable as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - a broken picture may raise anything; the other pages must still be read
            fault = f"{type(error).__name__}: {error}"[:200]
        write_line(page=number, text=text, confidence=round(min(1.0, confidence), 4), fault=fault, boxes=boxes)
    write_line(end="read")


def _open_pictures(path: str, media_type: MediaType, password: str, max_pixels: int) -> "Pictures":
    """Open a file in which pictures are. Raises ReadError, or whatever the library raises."""
    from workers.cpu.ocr.embedded import EmbeddedPictures
    from workers.cpu.ocr.pictures import FilePictures, PdfPictures

    if media_type == media_types.PDF:
        return PdfPictures(path, password)
    if media_type in media_types.PICTURES:
        return FilePictures(path, media_type, max_pixels)
    return EmbeddedPictures(path, media_type, password, max_pixels)


def _recognize(parts: "Iterator[PagePart]", engine: Callable[[], OcrEngine]) -> Iterator[RecognizedText]:
    """What the pictures show, with the places of lines on the page."""
    for part in parts:
        read = engine().read_text(part.image)
        yield replace(read, lines=[replace(line, place=_on_page(line.place, part)) for line in read.lines])


def _on_page(place: Place | None, part: "PagePart") -> Place | None:
    if place is None:
        return None
    left, top, right, bottom = place
    return (
        part.left + left * part.width,
        part.top + top * part.height,
        part.left + right * part.width,
        part.top + bottom * part.height,
    )


def _units(place: Place) -> tuple[int, ...]:
    return tuple(round(min(max(each, 0.0), 1.0) * SCALE) for each in place)


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    use_one_thread()
    load_library(request["engine"])
    close_sandbox(request["memory_bytes"], request["seconds"], [request["descriptor"]], data_folders(request["engine"]))
    try:
        write_pages(request)
    except ReadError as error:
        write_line(end=error.code, reason=str(error))
    except EngineMissing as error:
        write_line(end="missing", reason=str(error))
    except Exception as error:  # noqa: BLE001 - the top of the process; the parent decides what the error means
        write_line(end="unreadable", reason=f"{type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main()
