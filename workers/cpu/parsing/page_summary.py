"""What the pages of a document amount to: whether it can be indexed at all, and what is wrong with which of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from shared.documents.models import Problem
from shared.errors import DocumentRejected
from workers.cpu.parsing.parser import Page

ONLY_IMAGES = "holds only images and needs OCR"

MOST_PROBLEMS = 50


@dataclass(frozen=True)
class PageSummary:
    """Pages in all, and what is to be said of some."""

    pages: int
    problems: list[Problem]

    @property
    def reason(self) -> str:
        """The problems in a sentence each, or ""."""
        return " ".join(f"Page {problem.pages} {problem.text}." for problem in self.problems[:10])


def summarize_pages(pages: Iterable[Page]) -> PageSummary:
    """Raises DocumentRejected, ``needs_ocr``, ``failed`` or ``empty``, when no page has text."""
    total, texts = 0, 0
    faults: dict[str, list[int]] = {}
    pictures: list[int] = []
    broken = 0
    for page in pages:
        total += 1
        has_text = bool(page.text.strip())
        texts += has_text
        broken += bool(page.fault) and not has_text
        if page.fault:
            what = page.fault if has_text else f"could not be read ({page.fault})"
            faults.setdefault(what, []).append(page.number)
        elif page.images and not has_text:
            pictures.append(page.number)
    if not texts:
        raise _without_text(pictures, total, broken, next(iter(faults), ""))
    found = [Problem(pages=format_ranges(pictures), text=ONLY_IMAGES)] if pictures else []
    found += [Problem(pages=format_ranges(numbers), text=what) for what, numbers in faults.items()]
    return PageSummary(total, found[:MOST_PROBLEMS])


def _without_text(pictures: list[int], total: int, broken: int, fault: str) -> DocumentRejected:
    if pictures:
        where = f"{format_ranges(pictures)} of {total}"
        return DocumentRejected(
            f"It holds no text, only images (pages {where}). Run OCR on it and upload the result.", code="needs_ocr"
        )
    if broken:
        return DocumentRejected(f"None of its {total} pages gave text; {broken} of them {fault}.", code="failed")
    return DocumentRejected("It holds neither text nor images.", code="empty")


def format_ranges(numbers: list[int]) -> str:
    """Rising numbers in short: ``1-3, 7``."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in found)
