"""The OCR twin: the manuals with some of their pages as pictures, which have the text of the same pages only for readers of pictures."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypdfium2

from benchmarks.retrieval.manuals import digest
from cli.remote.evaluation.questions import Question

PIXELS_PER_INCH = 150
JPEG_QUALITY = 80


def choose_pages(questions: Sequence[Question], count: int) -> dict[str, set[int]]:
    """``count`` pages with answers, spread evenly over the questions, by document."""
    answers = [(question.document[0], page) for question in questions for page in question.page or ()]
    distinct = list(dict.fromkeys(answers))
    chosen = distinct if count >= len(distinct) else [distinct[number * len(distinct) // count] for number in range(count)]
    pages: dict[str, set[int]] = {}
    for document, page in chosen:
        pages.setdefault(document, set()).add(page)
    return pages


@dataclass(frozen=True)
class Twin:
    """The files with some of their pages as ``pictures``, and the questions whose answers are on those pages. ``name`` differs for other pages."""

    name: str
    files: Sequence[Path]
    questions: Sequence[Question]
    pictures: int


def make_twin(files: Sequence[Path], questions: Sequence[Question], count: int, folder: Path) -> Twin:
    """A twin with ``count`` pictures of pages with answers, of which the changed files are kept in ``folder``."""
    questions = [question for question in questions if not question.history]
    pages = choose_pages(questions, count)
    name = f"{count}-{digest(sorted(path.name for path in files), sorted((name, sorted(numbers)) for name, numbers in pages.items()))}"
    return Twin(name, make_twins(files, pages, folder / name), questions_about(questions, pages), sum(map(len, pages.values())))


def make_twins(files: Sequence[Path], pages: dict[str, set[int]], folder: Path) -> list[Path]:
    """The files, of which those with chosen pages are copied to ``folder`` with pictures in place of these pages."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_make_twin(path, pages[path.name], folder / path.name) if path.name in pages else path for path in files]


def _make_twin(source: Path, pictured: set[int], target: Path) -> Path:
    if target.exists():
        return target
    original = pypdfium2.PdfDocument(str(source))
    twin = pypdfium2.PdfDocument.new()
    for number in range(len(original)):
        if number + 1 in pictured:
            twin.import_pages(pypdfium2.PdfDocument(_picture(original[number])))
        else:
            twin.import_pages(original, [number])
    twin.save(str(target))
    return target


def _picture(page: Any) -> bytes:
    """A page as a PDF that contains only a picture of it."""
    written = io.BytesIO()
    image = page.render(scale=PIXELS_PER_INCH / 72).to_pil().convert("L")
    image.save(written, "PDF", resolution=PIXELS_PER_INCH, quality=JPEG_QUALITY)
    return written.getvalue()


def questions_about(questions: Sequence[Question], pages: dict[str, set[int]]) -> list[Question]:
    """The questions whose answers are on these pages only."""
    return [question for question in questions if question.page and set(question.page) <= pages.get(question.document[0], set())]


def shares_kept(text: Mapping[str, float], pictures: Mapping[str, float]) -> dict[str, float]:
    """What share of each measure for text pictures keep. Measures that are 0 for text are left out, as those of a few questions may be."""
    return {name: pictures[name] / value for name, value in text.items() if value}
