"""OLE container: either an encrypted file of current Office, or a file of Office before 2007, of which workbooks are read."""

import io
import zipfile

from shared.documents.media_types import SUPPORTED
from workers.cpu.readers.reader import Reader, ReadError, Source, password_error

_READERS = {"xl/workbook.bin": "binary workbook", "word/": "docx", "ppt/": "pptx", "xl/": "xlsx", "visio/": "visio"}

# What to do with files that are not read, by the stream that they have.
_ADVICE = {
    "WordDocument": "The file is a Word document of before 2007 (.doc). Open it in Word or LibreOffice, save it as .docx and upload that.",
    "PowerPoint Document": "The file is a PowerPoint presentation of before 2007 (.ppt). Open it in PowerPoint or LibreOffice, save it as "
    ".pptx and upload that.",
}
_UNKNOWN = (
    "The file is an OLE container, as Publisher, Visio, Works and other programs write it. Open it in its program, save it as .docx or "
    f".pdf and upload that. Supported formats: {SUPPORTED}."
)


def open_office_container(source: Source, password: str) -> Reader:
    """Decrypt the container in memory and return the reader for the file inside."""
    import olefile

    from workers.cpu.readers.registry import open_reader

    with olefile.OleFileIO(source) as container:
        encrypted = container.exists("EncryptedPackage")
        workbook = container.exists("Workbook") or container.exists("Book")
        reason = next((advice for stream, advice in _ADVICE.items() if container.exists(stream)), _UNKNOWN)
    if not isinstance(source, str):
        source.seek(0)
    if workbook:
        return open_reader("binary workbook", _without_password(source, password), "")
    if not encrypted:
        raise ReadError("unsupported", reason)
    if not password:
        raise password_error(password)
    plain = decrypt(source, password)
    with zipfile.ZipFile(plain) as packed:
        names = packed.namelist()
    plain.seek(0)
    for start, reader in _READERS.items():
        if any(name.startswith(start) for name in names):
            return open_reader(reader, plain, "")
    raise ReadError(
        "unsupported", f"The encrypted file is not a Word, Excel, PowerPoint or Visio file. Supported formats: {SUPPORTED}."
    )


def decrypt(source: Source, password: str) -> io.BytesIO:
    """The Office file inside an encrypted container. Raises ReadError if the password is wrong."""
    import msoffcrypto

    plain = io.BytesIO()
    with open(source, "rb") if isinstance(source, str) else source as stream:
        office = msoffcrypto.OfficeFile(stream)
        try:
            office.load_key(password=password, verify_password=True)
            office.decrypt(plain)
        except msoffcrypto.exceptions.InvalidKeyError:
            raise password_error(password) from None
    plain.seek(0)
    return plain


def _without_password(source: Source, password: str) -> Source:
    """A workbook of before 2007, decrypted if it is encrypted."""
    import msoffcrypto

    with open(source, "rb") if isinstance(source, str) else io.BytesIO(source.read()) as stream:
        data = stream.read()
        try:
            encrypted = msoffcrypto.OfficeFile(io.BytesIO(data)).is_encrypted()
        except Exception:  # noqa: BLE001 - the library raises many things; the reader may still read the file
            encrypted = False
    if not encrypted:
        return io.BytesIO(data)
    if not password:
        raise password_error(password)
    return decrypt(io.BytesIO(data), password)
