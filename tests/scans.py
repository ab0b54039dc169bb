"""Pictures of text, for the tests of OCR."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from shared.documents.files import DocumentFiles
from shared.documents.media_types import detect_media_type
from shared.ids import DOCUMENT, new_id
from workers.cpu.cpu_slots import CpuSlots
from workers.cpu.indexer import read_parsed_pages
from workers.cpu.ocr.ocr_pages import OcrPages, OcrSettings
from workers.cpu.ocr.recognizer import OcrLimits
from workers.cpu.parsing.page_summary import PageSummary, summarize_pages
from workers.cpu.parsing.parser import CharacterBudget, Limits, Page, read_pages
from workers.cpu.sandbox.child_process import ChildProcesses

PARSE_LIMITS = Limits(seconds=60, memory_bytes=1 << 30, max_pages=1000, max_page_characters=100_000)
OCR_LIMITS = OcrLimits(page_seconds=120, memory_bytes=2 << 30, max_picture_pixels=100_000_000, max_page_characters=100_000)


def draw_text(*lines: str, width: int = 640, height: int = 220, size: int = 32) -> Image.Image:
    """A white picture with lines of text."""
    picture = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(size)
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((30, 25 + number * int(1.6 * size)), line, "black", font)
    return picture


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def scanned_pdf(*texts: str) -> bytes:
    """A PDF with a picture of text on each page."""
    first, *others = (draw_text(text, width=520, height=120) for text in texts)
    return encode(first, "PDF", resolution=150, save_all=True, append_images=others)


class ScannedDocument:
    """One document in ``folder`` whose pages have been parsed, to be read by OCR."""

    def __init__(self, folder: Path, data: bytes, *, engine: str = "rapidocr", images: bool = False, slots: int = 1) -> None:
        self.files = DocumentFiles(folder / "documents")
        self.id = new_id(DOCUMENT)
        self.limits = OCR_LIMITS
        self.progress: list[tuple[int, int]] = []
        self.children = ChildProcesses()
        self.check: Callable[[], None] = lambda: None
        self.on_page: Callable[[], None] = lambda: None
        self.settings = {"engine": engine, "languages": (), "images": images, "document_seconds": 600.0}
        self.original = self.files.path(self.id, "original")
        self.original.parent.mkdir(parents=True)
        self.original.write_bytes(data)
        self.media_type = detect_media_type(self.original)
        self.slots = CpuSlots(folder / "cpu-slots", slots)
        pages: list[Page] = []
        read_pages(self.original, self.media_type, PARSE_LIMITS, lambda page, _: pages.append(page))
        with self.files.replace(self.id, "pages.jsonl") as target:
            target.writelines(json.dumps(asdict(page)).encode() + b"\n" for page in pages)

    def read(self) -> list[Page]:
        OcrPages(
            self.files,
            self.id,
            self.media_type,
            OcrSettings(**self.settings, limits=self.limits),  # type: ignore[arg-type]
            password="",
            slots=self.slots,
            children=self.children,
            budget=CharacterBudget(10_000_000),
            check=self.check,
            on_progress=lambda done, total: self.progress.append((done, total)),
            on_page=self.on_page,
        ).read_missing()
        return self.pages()

    def pages(self) -> list[Page]:
        return list(read_parsed_pages(self.files, self.id))

    def summary(self) -> PageSummary:
        return summarize_pages(self.pages())

    def stored_numbers(self) -> list[int]:
        """The pages in ``ocr.jsonl``, each as often as it was read."""
        lines = self.files.path(self.id, "ocr.jsonl").read_bytes().split(b"\n")
        return [json.loads(line.partition(b" ")[2])["number"] for line in lines if line.endswith(b"}")]
