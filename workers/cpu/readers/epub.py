"""EPUB reader: each chapter begins a page, in the order of the book's spine."""

import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from lxml import etree

from workers.cpu.readers.markup import read_chapter
from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source
from workers.cpu.readers.zip_safety import check_zip

# Algorithms that only obfuscate fonts; the text stays readable.
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


class EpubReader(InMemoryReader):
    """E-books."""

    name = "epub"

    def __init__(self, source: Source, password: str) -> None:
        check_zip(source)
        with zipfile.ZipFile(source) as packed:
            package_path = _xml(packed, "META-INF/container.xml").xpath("string(//*[local-name()='rootfile']/@full-path)")
            package = _xml(packed, package_path)
            items = {
                item.get("id"): posixpath.normpath(
                    posixpath.join(posixpath.dirname(package_path), unquote(item.get("href") or ""))
                )
                for item in package.xpath("//*[local-name()='manifest']/*[local-name()='item']")
            }
            spine = [items.get(entry.get("idref")) for entry in package.xpath("//*[local-name()='spine']/*")]
            encrypted = _encrypted_parts(packed)
            if encrypted & set(spine):
                raise ReadError("encrypted", "Its chapters are encrypted (DRM). Upload a copy without DRM.")
            contents: list[Content] = []
            for part in filter(None, spine):
                try:
                    contents += read_chapter(packed.read(part))
                except (KeyError, zipfile.BadZipFile) as error:
                    contents.append(Content("", fault=f"chapter {part!r}: {error}"[:200]))
            title = package.xpath("string(//*[local-name()='title'])")
        super().__init__(contents or [Content("")], " ".join(str(title).split()))


def _xml(packed: zipfile.ZipFile, part: str) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    return etree.fromstring(packed.read(part), parser)


def _encrypted_parts(packed: zipfile.ZipFile) -> set[str | None]:
    if "META-INF/encryption.xml" not in packed.namelist():
        return set()
    encrypted: set[str | None] = set()
    for data in _xml(packed, "META-INF/encryption.xml").xpath("//*[local-name()='EncryptedData']"):
        method = data.xpath("string(*[local-name()='EncryptionMethod']/@Algorithm)")
        if method not in _FONT_OBFUSCATION:
            encrypted.add(unquote(data.xpath("string(.//*[local-name()='CipherReference']/@URI)")))
    return encrypted
