"""PDF, by two readers: the usual one, and a second opinion."""

from typing import Any

from workers.cpu.readers.reader import Content, Source, password_error


class PdfiumReader:
    """The usual reader: fast, and right about spaces."""

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

    def read(self, number: int) -> Content:
        page = self._document[number - 1]
        try:
            text_page = page.get_textpage()
            # A hyphen that only breaks a line comes as U+FFFE with the line break taken out; without it the word is whole.
            text = str(text_page.get_text_range(errors="ignore")).replace("\ufffe\r\n", "").replace("\ufffe", "")
            text_page.close()
            images = not text.strip() and any(True for _ in page.get_objects(filter=[self._raw.FPDF_PAGEOBJ_IMAGE]))
            return Content(text, images)
        finally:
            page.close()


class PypdfReader:
    """The second opinion: slower, and it reads some broken files that the usual reader refuses."""

    name = "pypdf"

    def __init__(self, source: Source, password: str) -> None:
        import pypdf

        self._document = pypdf.PdfReader(source)
        if self._document.is_encrypted and not self._document.decrypt(password):
            raise password_error(password)
        self.pages = len(self._document.pages)
        self.title = str(self._document.metadata.title or "") if self._document.metadata else ""

    def read(self, number: int) -> Content:
        page = self._document.pages[number - 1]
        text: str = page.extract_text()
        return Content(text, not text.strip() and bool(page.images.keys()))
