"""OCR engines by name. A child process imports the library of the one that it uses when it meets the first picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from workers.cpu.ocr.layout import RecognizedText


class EngineMissing(Exception):
    """The library or the data of the engine is not installed; the message says what to install."""


class OcrEngine(Protocol):
    """Reader of one picture at a time: an array of height, width, and the channels red, green and blue."""

    def read_text(self, image: Any) -> RecognizedText: ...


def use_one_thread() -> None:
    """Keep the libraries from starting threads of their own. They read these variables when they are first imported."""
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"


def open_engine(name: str, languages: Sequence[str]) -> OcrEngine:
    """Load an engine with its models. Raises EngineMissing."""
    if name == "tesseract":
        from workers.cpu.ocr.tesseract import TesseractEngine

        return TesseractEngine(languages)
    try:
        from workers.cpu.ocr.paddle import PaddleEngine
    except ImportError as error:
        raise EngineMissing(
            f"The OCR engine rapidocr is not installed ({error}). Install the extra `cpu` of enginehouse."
        ) from error
    return PaddleEngine()


def data_folders(name: str) -> list[Path]:
    """Folders besides those of Python that an engine reads."""
    from workers.cpu.ocr.tesseract import DATA_FOLDERS

    return list(DATA_FOLDERS) if name == "tesseract" else []
