"""OOXML packages: the parts of a Word, PowerPoint, Excel or Visio file, found through their relationships.

Names of parts are a convention that some writers do not follow, so only relationships say where the text is.
"""

import posixpath
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from lxml import etree

from workers.cpu.readers.reader import ReadError, Source
from workers.cpu.readers.zip_safety import check_zip

OFFICE = "http://schemas.openxmlformats.org/"
W = f"{{{OFFICE}wordprocessingml/2006/main}}"
A = f"{{{OFFICE}drawingml/2006/main}}"
P = f"{{{OFFICE}presentationml/2006/main}}"
S = f"{{{OFFICE}spreadsheetml/2006/main}}"
R = f"{{{OFFICE}officeDocument/2006/relationships}}"
M = f"{{{OFFICE}officeDocument/2006/math}}"
MC = f"{{{OFFICE}markup-compatibility/2006}}"
C = f"{{{OFFICE}drawingml/2006/chart}}"
DGM = f"{{{OFFICE}drawingml/2006/diagram}}"
CX = "{http://schemas.microsoft.com/office/drawing/2014/chartex}"
CHART, EXTENDED_CHART, DIAGRAM = f"{C}chart", f"{CX}chart", f"{DGM}relIds"

# Namespaces of "Strict Open XML", which Office offers when it saves a file.
_STRICT = b"http://purl.oclc.org/ooxml/"
_STRICT_NAMESPACES = {
    f"http://purl.oclc.org/ooxml/{strict}".encode(): f"{OFFICE}{transitional}".encode()
    for strict, transitional in (
        ("wordprocessingml/main", "wordprocessingml/2006/main"),
        ("presentationml/main", "presentationml/2006/main"),
        ("spreadsheetml/main", "spreadsheetml/2006/main"),
        ("drawingml/main", "drawingml/2006/main"),
        ("drawingml/chart", "drawingml/2006/chart"),
        ("drawingml/diagram", "drawingml/2006/diagram"),
        ("drawingml/spreadsheetDrawing", "drawingml/2006/spreadsheetDrawing"),
        ("drawingml/wordprocessingDrawing", "drawingml/2006/wordprocessingDrawing"),
        ("officeDocument/relationships", "officeDocument/2006/relationships"),
        ("officeDocument/math", "officeDocument/2006/math"),
    )
}


DAMAGED = (etree.XMLSyntaxError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
"""What reading a damaged part raises. It must not cost the text of the others."""


@dataclass(frozen=True)
class Relationship:
    """What a part refers to: the last word of its type, such as ``footnotes``, and the name of the other part."""

    kind: str
    target: str
    external: bool


class Package:
    """An open file. Its parts are found whatever the case of their names, and with backslashes too."""

    def __init__(self, source: Source) -> None:
        check_zip(source)
        self._zip = zipfile.ZipFile(source)
        self._names = {_key(name): name for name in self._zip.namelist()}

    def main_part(self) -> str:
        """The name of the part with the text. Raises ReadError."""
        for relationship in self.relationships("").values():
            if relationship.kind in ("officeDocument", "document") and relationship.target in self:
                return relationship.target
        for usual in ("word/document.xml", "ppt/presentation.xml", "xl/workbook.xml", "visio/document.xml"):
            if usual in self:
                return usual
        raise ReadError("unreadable", "the package names no main part")

    def __contains__(self, part: str) -> bool:
        return _key(part) in self._names

    def parts(self, suffix: str) -> list[str]:
        return [name for key, name in self._names.items() if key.endswith(suffix)]

    def open(self, part: str) -> Any:
        """The unpacked bytes of a part as a stream."""
        return self._zip.open(self._names[_key(part)])

    def read(self, part: str) -> bytes:
        with self.open(part) as stream:
            data: bytes = stream.read()
        return data

    def parse(self, part: str) -> Any:
        """The root element of an XML part, in the namespaces of transitional OOXML, with one branch of each alternative."""
        root = etree.fromstring(transitional(self.read(part)), _parser())
        keep_one_alternative(root)
        return root

    def relationships(self, part: str) -> dict[str, Relationship]:
        """By their ids. Those of the package itself are those of the part ""."""
        folder, name = posixpath.split(part)
        path = posixpath.join(folder, "_rels", f"{name}.rels")
        if path not in self:
            return {}
        found = {}
        for element in etree.fromstring(self.read(path), _parser()):
            target = element.get("Target") or "" if isinstance(element.tag, str) else ""
            external = element.get("TargetMode") == "External"
            if target and not external:
                target = posixpath.normpath(posixpath.join("/", folder, unquote(target.replace("\\", "/")))).lstrip("/")
            kind = (element.get("Type") or "").rpartition("/")[2]
            found[element.get("Id") or ""] = Relationship(kind, target, external)
        return found

    def related(self, part: str, *kinds: str) -> list[str]:
        """The parts of these kinds that a part refers to and that exist."""
        return [r.target for r in self.relationships(part).values() if r.kind in kinds and not r.external and r.target in self]

    def title(self) -> str:
        """The title among the properties of the file, or ""."""
        for part in self.related("", "core-properties"):
            try:
                return " ".join(str(self.parse(part).findtext("{http://purl.org/dc/elements/1.1/}title") or "").split())
            except DAMAGED:
                break  # damaged properties must not cost the text
        return ""

    @property
    def has_macros(self) -> bool:
        return bool(self.parts("vbaproject.bin"))


def transitional(data: bytes) -> bytes:
    """XML with the namespaces of transitional OOXML, whose elements have the same names as those of strict OOXML."""
    if _STRICT in data[:65536]:
        for strict, namespace in _STRICT_NAMESPACES.items():
            data = data.replace(strict, namespace)
    return data


def keep_one_alternative(root: Any) -> None:
    """Writers add what older programs show instead of new elements. Keep the first branch with text, or the first of all."""
    for alternative in list(root.iter(f"{MC}AlternateContent")):
        branches = [branch for branch in alternative if branch.tag in (f"{MC}Choice", f"{MC}Fallback")]
        kept = next((branch for branch in branches if _has_text(branch)), branches[0] if branches else None)
        for branch in branches:
            if branch is not kept:
                alternative.remove(branch)


def _has_text(branch: Any) -> bool:
    return any(True for _ in branch.iter(f"{W}t", f"{A}t", f"{M}t", CHART, EXTENDED_CHART, DIAGRAM))


def _parser() -> Any:
    # The default limits of the library stay: 256 levels, so recursion is safe, and no expansion of entities.
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )


def _key(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()
