"""Tesseract engine, through the C interface of Debian's ``libtesseract5``, so that it runs inside the sandboxed child.

Install the packages ``tesseract-ocr`` and, for each language, ``tesseract-ocr-<language>``.
"""

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from workers.cpu.ocr.installation import (
    DEFAULT_LANGUAGES,
    LANGUAGES_SETTING,
    NO_TESSERACT,
    TESSERACT_FOLDERS,
    TESSERACT_LIBRARY,
    EngineMissing,
    find_tesseract_data,
)
from workers.cpu.ocr.layout import RecognizedText, join_broken_words

_AUTO_WITH_ORIENTATION, _AUTO = 1, 3
_TEXT_LINE = 2
_RESOLUTION = 200


class TesseractEngine:
    """Reader of pictures with text in the given languages, by the names of their data files, such as ``deu``. ``named_by`` is the setting or
    field that asks for them."""

    def __init__(
        self,
        languages: Sequence[str],
        library: str = TESSERACT_LIBRARY,
        data_folders: Sequence[Path] = TESSERACT_FOLDERS,
        *,
        named_by: str = LANGUAGES_SETTING,
    ) -> None:
        languages = languages or DEFAULT_LANGUAGES
        try:
            self._library: Any = ctypes.CDLL(library)
        except OSError as error:
            raise EngineMissing(NO_TESSERACT) from error
        folder = find_tesseract_data(languages, data_folders, named_by=named_by)
        self._library.TessBaseAPIGetInitLanguagesAsString.restype = ctypes.c_char_p
        for name in ("Create", "GetIterator", "GetUTF8Text"):
            getattr(self._library, f"TessBaseAPI{name}").restype = ctypes.c_void_p
        self._library.TessResultIteratorGetPageIterator.restype = ctypes.c_void_p
        self._library.TessResultIteratorConfidence.restype = ctypes.c_float
        self._handle = ctypes.c_void_p(self._library.TessBaseAPICreate())
        if self._library.TessBaseAPIInit3(self._handle, str(folder).encode(), "+".join(languages).encode()):
            raise EngineMissing(f"Tesseract cannot load its data for {', '.join(languages)} from {folder}.")
        has_orientation = (folder / "osd.traineddata").exists()
        self._library.TessBaseAPISetPageSegMode(self._handle, _AUTO_WITH_ORIENTATION if has_orientation else _AUTO)

    @property
    def languages(self) -> list[str]:
        """The languages that Tesseract has loaded."""
        loaded: bytes = self._library.TessBaseAPIGetInitLanguagesAsString(self._handle)
        return loaded.decode().split("+")

    def read_text(self, image: Any) -> RecognizedText:
        """The text of a picture, in the order that Tesseract finds."""
        height, width, channels = image.shape
        pixels = image.tobytes()
        self._library.TessBaseAPISetImage(self._handle, pixels, width, height, channels, width * channels)
        self._library.TessBaseAPISetSourceResolution(self._handle, _RESOLUTION)
        pointer = self._library.TessBaseAPIGetUTF8Text(self._handle)
        if not pointer:
            return RecognizedText("", 0.0)
        text = (ctypes.string_at(pointer) or b"").decode("utf-8", "replace")
        self._library.TessDeleteText(ctypes.c_void_p(pointer))
        confidences = list(self._line_confidences()) if text.strip() else []
        self._library.TessBaseAPIClear(self._handle)
        return RecognizedText(join_broken_words(text.strip()), round(fmean(confidences), 4) if confidences else 0.0)

    def _line_confidences(self) -> Iterator[float]:
        found = self._library.TessBaseAPIGetIterator(self._handle)
        if not found:
            return
        results = ctypes.c_void_p(found)
        pages = ctypes.c_void_p(self._library.TessResultIteratorGetPageIterator(results))
        self._library.TessPageIteratorBegin(pages)
        while True:
            yield float(self._library.TessResultIteratorConfidence(results, _TEXT_LINE)) / 100
            if not self._library.TessPageIteratorNext(pages, _TEXT_LINE):
                break
        self._library.TessResultIteratorDelete(results)
