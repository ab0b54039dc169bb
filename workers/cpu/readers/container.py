"""Office's older container: an encrypted file of today's Office, or a file of an Office of before 2007."""

import io
import zipfile

from shared.documents.media_types import DOCX, PPTX, SUPPORTED, XLSX
from workers.cpu.readers.base import Reader, Rejected, Source, locked

_PARTS = {"word/document.xml": DOCX, "ppt/presentation.xml": PPTX, "xl/workbook.xml": XLSX}


def OfficeContainerReader(source: Source, password: str) -> Reader:
    """The reader of what is in the container, which is decrypted in memory."""
    import msoffcrypto
    import olefile

    from workers.cpu.readers import READERS_OF, open_reader

    with olefile.OleFileIO(source) as container:
        encrypted = container.exists("EncryptedPackage")
    if not encrypted:
        raise Rejected(
            "unsupported", f"It is an Office file of before 2007; save it as .docx, .xlsx or .pptx. Supported are {SUPPORTED}."
        )
    if not password:
        raise locked(password)
    plain = io.BytesIO()
    with open(source, "rb") if isinstance(source, str) else source as stream:
        office = msoffcrypto.OfficeFile(stream)
        try:
            office.load_key(password=password, verify_password=True)
            office.decrypt(plain)
        except msoffcrypto.exceptions.InvalidKeyError:
            raise locked(password) from None
    plain.seek(0)
    with zipfile.ZipFile(plain) as packed:
        names = set(packed.namelist())
    plain.seek(0)
    for part, kind in _PARTS.items():
        if part in names:
            return open_reader(READERS_OF[kind][0], plain, "")
    raise Rejected("unsupported", f"What it encrypts is neither a Word, Excel nor PowerPoint file. Supported are {SUPPORTED}.")
