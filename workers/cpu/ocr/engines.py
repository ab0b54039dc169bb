"""OCR engines by name. A child process imports the library of the one that it uses when it meets the first picture."""

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from workers.cpu.ocr.installation import TESSERACT_FOLDERS, TESSERACT_LIBRARY, EngineMissing
from workers.cpu.ocr.layout import RecognizedText


class OcrEngine(Protocol):
    """Reader of one picture at a time: an array of height, width, and the channels red, green and blue."""

    def read_text(self, image: Any) -> RecognizedText: ...


def use_one_thread() -> None:
    """Keep the libraries from starting threads of their own. They read these variables when they are first imported."""
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


def load_library(name: str) -> None:
    """Load what cannot be found from inside the sandbox. The engine reports a library that is missing."""
    if name == "tesseract":
        with suppress(OSError):
            ctypes.CDLL(TESSERACT_LIBRARY)


def open_engine(name: str, languages: Sequence[str], named_by: str) -> OcrEngine:
    """Load an engine with its models. ``named_by`` is the setting or field that asks for the languages. Raises EngineMissing."""
    if name == "tesseract":
        from workers.cpu.ocr.tesseract import TesseractEngine

        return TesseractEngine(languages, named_by=named_by)
    try:
        from workers.cpu.ocr.paddle import PaddleEngine
    except ImportError as error:
        raise EngineMissing(
            f"The OCR engine rapidocr is not installed ({error}). Install the extra `cpu` of enginehouse."
        ) from error
    return PaddleEngine()


def data_folders(name: str) -> list[Path]:
    """Folders besides those of Python that an engine reads."""
    return list(TESSERACT_FOLDERS) if name == "tesseract" else []
