"""Languages of OCR, by the names of Tesseract's data files."""

import re
from collections.abc import Sequence

_LATIN = (
    "afr cat ces cym dan deu eng epo est eus fao fin fra gle glg hrv hun ind isl ita lat lav lit ltz msa nld nor oci pol por ron slk slv "
    "spa sqi srp_latn swa swe tgl tur"
)
RAPIDOCR_LANGUAGES = frozenset(["chi_sim", "chi_tra", "jpn", *_LATIN.split()])
"""Languages all of whose letters the models inside the package ``rapidocr`` know."""

_NAME = re.compile(r"[A-Za-z]{3,8}(_[A-Za-z]{2,12}){0,2}")


def check_ocr_languages(engine: str, languages: Sequence[str], name: str = "ENGINEHOUSE_OCR_LANGUAGES") -> list[str]:
    """What is wrong with the languages in the setting or field ``name``, as sentences."""
    unknown = [language for language in languages if not _NAME.fullmatch(language)]
    if unknown:
        return [f"{name}: {unknown[0][:40]!r} is not a language such as 'deu' or 'chi_sim'"]
    unread = sorted(set(languages) - RAPIDOCR_LANGUAGES) if engine == "rapidocr" else []
    if unread:
        return [
            f"{name}: the engine rapidocr cannot read {', '.join(unread)}; set ENGINEHOUSE_OCR_ENGINE=tesseract, or use "
            f"{', '.join(sorted(RAPIDOCR_LANGUAGES))}"
        ]
    return []
