"""Page summary: whether a parsed document has any text, and which of its pages have problems."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from shared.documents.models import Problem
from shared.errors import DocumentRejected
from workers.cpu.parsing.parser import Page
from workers.cpu.readers.reader import NEEDS_OCR, NO_OCR_TEXT, UNREAD_IMAGES

ONLY_IMAGES = "holds only images and needs OCR"

MAX_PROBLEMS = 50


@dataclass(frozen=True)
class PageSummary:
    """The number of pages, the problems found, how many headers and footers were left out, and the SHA-256 of all words, by which files
    are recognised that have other bytes and the same text."""

    pages: int
    problems: list[Problem]
    removed_lines: int = 0
    text_sha256: str = ""

    @property
    def reason(self) -> str:
        """The first problems as sentences, or ""."""
        return " ".join(f"Page {problem.pages} {problem.text}." for problem in self.problems[:10])


def summarize_pages(pages: Iterable[Page]) -> PageSummary:
    """Raises DocumentRejected (``needs_ocr``, ``failed`` or ``empty``) when no page has text."""
    total, pages_with_text, unreadable, textless_pictures, removed_lines = 0, 0, 0, 0, 0
    faults: dict[str, list[int]] = {}
    image_pages: list[int] = []
    scanned_pages: list[int] = []
    words = hashlib.sha256()
    for page in pages:
        total += 1
        words.update("".join(f"{word} " for word in page.text.split()).encode("utf-8", "surrogatepass"))
        removed_lines += page.removed_lines
        has_text = bool(page.text.strip())
        pages_with_text += has_text
        if has_text and page.fault.startswith(NEEDS_OCR):
            scanned_pages.append(page.number)
        only_images = page.images and not has_text and page.confidence is None
        textless_pictures += page.fault.startswith(NO_OCR_TEXT) and not has_text
        unreadable += bool(page.fault) and not has_text and not page.fault.startswith(NO_OCR_TEXT)
        if only_images:
            image_pages.append(page.number)
        if page.pictures and has_text and page.confidence is None and UNREAD_IMAGES not in page.fault:
            faults.setdefault(UNREAD_IMAGES, []).append(page.number)
        if page.fault:
            is_sentence = has_text or only_images or page.confidence is not None
            problem = page.fault if is_sentence else f"could not be read ({page.fault})"
            faults.setdefault(problem, []).append(page.number)
    if pages_with_text == len(scanned_pages):
        image_pages = sorted([*image_pages, *scanned_pages])
        fault = next((fault for fault in faults if not fault.startswith(NO_OCR_TEXT)), "")
        raise _no_text_error(image_pages, total, unreadable, fault, textless_pictures)
    problems = [Problem(pages=format_ranges(image_pages), text=ONLY_IMAGES)] if image_pages else []
    problems += [Problem(pages=format_ranges(numbers), text=problem) for problem, numbers in faults.items()]
    return PageSummary(total, problems[:MAX_PROBLEMS], removed_lines, words.hexdigest())


def _no_text_error(image_pages: list[int], total: int, unreadable: int, fault: str, textless_pictures: int) -> DocumentRejected:
    if image_pages:
        return DocumentRejected(
            f"The document contains only images (pages {format_ranges(image_pages)} of {total}) and no text. Run OCR on it and "
            "upload the result.",
            code="needs_ocr",
        )
    if unreadable:
        return DocumentRejected(f"None of the {total} pages has text; {unreadable} of them {fault}.", code="failed")
    if textless_pictures:
        return DocumentRejected(
            f"OCR found no text in the pictures of the document ({textless_pictures} of {total} pages).", code="empty"
        )
    return DocumentRejected("The document contains neither text nor images.", code="empty")


def format_ranges(numbers: list[int]) -> str:
    """Ascending numbers in compact form: ``1-3, 7``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
