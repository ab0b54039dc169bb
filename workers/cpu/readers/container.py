"""Office's older container: an encrypted file of today's Office, or a file of an Office of before 2007."""

import io
import zipfile

from shared.documents.media_types import DOCX, PPTX, SUPPORTED, XLSX
from workers.cpu.readers.reader import Reader, ReadError, Source, password_error

_PARTS = {"word/document.xml": DOCX, "ppt/presentation.xml": PPTX, "xl/workbook.xml": XLSX}


def OfficeContainerReader(source: Source, password: str) -> Reader:
    """The reader of what is in the container, which is decrypted in memory."""
    import msoffcrypto
    import olefile

    from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE, open_reader

    with olefile.OleFileIO(source) as container:
        encrypted = container.exists("EncryptedPackage")
    if not encrypted:
        raise ReadError(
            "unsupported", f"It is an Office file of before 2007; save it as .docx, .xlsx or .pptx. Supported are {SUPPORTED}."
        )
    if not password:
        raise password_error(password)
    plain = io.BytesIO()
    with open(source, "rb") if isinstance(source, str) else source as stream:
        office = msoffcrypto.OfficeFile(stream)
        try:
            office.load_key(password=password, verify_password=True)
            office.decrypt(plain)
        except msoffcrypto.exceptions.InvalidKeyError:
            raise password_error(password) from None
    plain.seek(0)
    with zipfile.ZipFile(plain) as packed:
        names = set(packed.namelist())
    plain.seek(0)
    for part, kind in _PARTS.items():
        if part in names:
            return open_reader(READERS_BY_MEDIA_TYPE[kind][0], plain, "")
    raise ReadError("unsupported", f"What it encrypts is neither a Word, Excel nor PowerPoint file. Supported are {SUPPORTED}.")
