"""OLE container: either an encrypted file of current Office, or a file of Office before 2007."""

import io
import zipfile

from shared.documents.media_types import DOCX, PPTX, SUPPORTED, XLSX
from workers.cpu.readers.reader import Reader, ReadError, Source, password_error

_PARTS = {"word/document.xml": DOCX, "ppt/presentation.xml": PPTX, "xl/workbook.xml": XLSX}


def open_office_container(source: Source, password: str) -> Reader:
    """Decrypt the container in memory and return the reader for the file inside."""
    import msoffcrypto
    import olefile

    from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE, open_reader

    with olefile.OleFileIO(source) as container:
        encrypted = container.exists("EncryptedPackage")
    if not encrypted:
        raise ReadError(
            "unsupported",
            f"The file is in the format of Office before 2007. Save it as .docx, .xlsx or .pptx. Supported formats: {SUPPORTED}.",
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
    for part, media_type in _PARTS.items():
        if part in names:
            return open_reader(READERS_BY_MEDIA_TYPE[media_type][0], plain, "")
    raise ReadError("unsupported", f"The encrypted file is not a Word, Excel or PowerPoint file. Supported formats: {SUPPORTED}.")
