"""What the OCR engines need on this machine: where their models and data are, and what to install if they are missing."""

from collections.abc import Sequence
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

PADDLE_MODELS = {
    "detect": "PP-OCRv6_det_small.onnx",
    "recognize": "PP-OCRv6_rec_small.onnx",
    "turn": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}
"""The models inside the package ``rapidocr``, by task."""

TESSERACT_LIBRARY = "libtesseract.so.5"
TESSERACT_FOLDERS = tuple(
    Path(folder) for folder in ("/usr/share/tesseract-ocr", "/usr/share/tessdata", "/usr/local/share/tessdata")
)
NO_TESSERACT = "The OCR engine tesseract is not installed. Install the Debian package tesseract-ocr."
DEFAULT_LANGUAGES = ("eng",)
LANGUAGES_SETTING = "ENGINEHOUSE_OCR_LANGUAGES"


class EngineMissing(Exception):
    """The library or the data of the engine is not installed; the message says what to install."""


def find_problems(engine: str, languages: Sequence[str]) -> list[str]:
    """Why an engine will not work on this machine, as sentences. Nothing is loaded."""
    try:
        if engine == "tesseract":
            if find_library("tesseract") is None:
                raise EngineMissing(NO_TESSERACT)
            find_tesseract_data(languages or DEFAULT_LANGUAGES)
        elif engine == "rapidocr":
            find_paddle_models()
    except EngineMissing as error:
        return [str(error)]
    return []


def find_paddle_models() -> Path:
    """The folder of the models inside the package ``rapidocr``, which is not imported. Raises EngineMissing."""
    package = find_spec("rapidocr")
    for location in (package.submodule_search_locations or []) if package else []:
        folder = Path(location) / "models"
        if all((folder / name).exists() for name in PADDLE_MODELS.values()):
            return folder
    raise EngineMissing("The OCR engine rapidocr has no models. Install rapidocr 3.10.0, whose wheel contains them.")


def find_tesseract_data(
    languages: Sequence[str], folders: Sequence[Path] = TESSERACT_FOLDERS, *, named_by: str = LANGUAGES_SETTING
) -> Path:
    """The folder with the data of all languages. Raises EngineMissing, which names those that are missing, and the setting or field
    ``named_by`` that asks for them."""
    files = [file for folder in folders if folder.exists() for file in sorted(folder.rglob("*.traineddata"))]
    for folder in dict.fromkeys(file.parent for file in files):
        if all((folder / f"{language}.traineddata").exists() for language in languages):
            return folder
    missing = [language for language in languages if language not in {file.stem for file in files}] or languages
    packages = " ".join(f"tesseract-ocr-{language.lower().replace('_', '-')}" for language in missing)
    raise EngineMissing(f"{named_by}: Tesseract has no data for {', '.join(missing)}. Run `apt-get install {packages}`.")
