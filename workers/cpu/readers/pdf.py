"""PDF readers: pdfium first, and pypdf for files or pages that pdfium cannot read."""

from typing import Any

from workers.cpu.readers.reader import Content, Source, password_error


class PdfiumReader:
    """First choice: fast, and accurate about spaces."""

    name = "pypdfium2"

    def __init__(self, source: Source, password: str) -> None:
        import pypdfium2

        self._raw: Any = pypdfium2.raw
        try:
            self._document = pypdfium2.PdfDocument(source, password=password or None)
        except pypdfium2.PdfiumError as error:
            if error.err_code == self._raw.FPDF_ERR_PASSWORD:
                raise password_error(password) from error
            raise
        self.pages = len(self._document)
        self.title = str(self._document.get_metadata_value("Title"))

    def read_page(self, number: int) -> Content:
        page = self._document[number - 1]
        try:
            text_page = page.get_textpage()
            # pdfium writes U+FFFE for a hyphen that only breaks a word at the end of a line; removing it joins the word.
            text = str(text_page.get_text_range(errors="ignore")).replace("\ufffe\r\n", "").replace("\ufffe", "")
            text_page.close()
            images = not text.strip() and any(True for _ in page.get_objects(filter=[self._raw.FPDF_PAGEOBJ_IMAGE]))
            return Content(text, images)
        finally:
            page.close()


class PypdfReader:
    """Second choice: slower, but reads some broken files that pdfium rejects."""

    name = "pypdf"

    def __init__(self, source: Source, password: str) -> None:
        import pypdf

        self._document = pypdf.PdfReader(source)
        if self._document.is_encrypted and not self._document.decrypt(password):
            raise password_error(password)
        self.pages = len(self._document.pages)
        self.title = str(self._document.metadata.title or "") if self._document.metadata else ""

    def read_page(self, number: int) -> Content:
        page = self._document.pages[number - 1]
        text: str = page.extract_text()
        return Content(text, not text.strip() and bool(page.images.keys()))
