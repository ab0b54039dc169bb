"""Small files of each format with the texts that a reader must find in them.

Most of them have one thing that readers are known to lose, repeat or glue together: a content control, a text box, a wrong
label. They are written as the markup in question, with as little around it as the format allows.
"""

from testing.reading_samples.books import book_samples
from testing.reading_samples.mail import mail_samples
from testing.reading_samples.open_document import open_document, open_document_samples
from testing.reading_samples.outlook import outlook, outlook_samples
from testing.reading_samples.package import Sample
from testing.reading_samples.pages import page_samples, rtf_samples
from testing.reading_samples.slides import slide_samples
from testing.reading_samples.visio import drawing, drawing_shape, visio_samples
from testing.reading_samples.word import word_samples
from testing.reading_samples.workbooks import binary_book, workbook_samples

__all__ = ["Sample", "binary_book", "drawing", "drawing_shape", "open_document", "outlook", "samples"]


def samples() -> list[Sample]:
    """All samples, grouped by format."""
    return [
        *word_samples(),
        *slide_samples(),
        *workbook_samples(),
        *visio_samples(),
        *open_document_samples(),
        *page_samples(),
        *mail_samples(),
        *outlook_samples(),
        *rtf_samples(),
        *book_samples(),
    ]
