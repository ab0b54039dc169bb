"""EPUB reader: each chapter begins a page, in the order of the book's spine."""

import posixpath
import unicodedata
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
            book = _Book(packed)
            package_path = book.package_path()
            package = book.parse(package_path)
            folder = posixpath.dirname(package_path)
            items = {item.get("id"): item for item in package.xpath("//*[local-name()='manifest']/*[local-name()='item']")}
            parts = {
                name: posixpath.normpath(posixpath.join(folder, unquote((item.get("href") or "").partition("#")[0])))
                for name, item in items.items()
            }
            spine = [parts.get(entry.get("idref")) for entry in package.xpath("//*[local-name()='spine']/*")]
            # Chapters that only links lead to, such as notes, stand in no spine.
            listed = set(spine)
            spine += [part for name, part in parts.items() if part not in listed and _is_chapter(items[name])]
            encrypted = _encrypted_parts(book)
            if encrypted & set(spine):
                raise ReadError("encrypted", "Its chapters are encrypted (DRM). Upload a copy without DRM.")
            contents: list[Content] = []
            for part in filter(None, spine):
                try:
                    contents += read_chapter(book.read(part))
                except (KeyError, zipfile.BadZipFile) as error:
                    contents.append(Content("", fault=f"chapter {part!r}: {error}"[:200]))
            title = package.xpath("string(//*[local-name()='title'])")
        super().__init__(contents or [Content("")], " ".join(str(title).split()))


class _Book:
    """The parts of a book. Those whose names differ from the book's own list in case alone are found too."""

    def __init__(self, packed: zipfile.ZipFile) -> None:
        self._zip = packed
        self._names = {_key(name): name for name in packed.namelist()}

    def __contains__(self, part: str) -> bool:
        return _key(part) in self._names

    def read(self, part: str) -> bytes:
        return self._zip.read(self._names.get(_key(part), part))

    def parse(self, part: str) -> Any:
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=True)
        root = etree.fromstring(self.read(part), parser)
        if root is None:
            raise ReadError("unreadable", f"epub: {part} is not XML")
        return root

    def package_path(self) -> str:
        """The name of the part that lists all others."""
        if "META-INF/container.xml" in self:
            path = str(self.parse("META-INF/container.xml").xpath("string(//*[local-name()='rootfile']/@full-path)"))
            if path in self:
                return path
        found = next((name for key, name in self._names.items() if key.endswith(".opf")), "")
        if not found:
            raise ReadError("unreadable", "epub: the book has no package document")
        return found


def _is_chapter(item: Any) -> bool:
    properties = (item.get("properties") or "").split()
    return "nav" not in properties and item.get("media-type") in (
        "application/xhtml+xml",
        "text/html",
        "application/x-dtbook+xml",
    )


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").lstrip("/")).lower()


def _encrypted_parts(book: _Book) -> set[str | None]:
    if "META-INF/encryption.xml" not in book:
        return set()
    encrypted: set[str | None] = set()
    for data in book.parse("META-INF/encryption.xml").xpath("//*[local-name()='EncryptedData']"):
        method = data.xpath("string(*[local-name()='EncryptionMethod']/@Algorithm)")
        if method not in _FONT_OBFUSCATION:
            encrypted.add(unquote(data.xpath("string(.//*[local-name()='CipherReference']/@URI)")))
    return encrypted
