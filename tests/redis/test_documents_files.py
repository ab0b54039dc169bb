"""Document files: atomic writes, generated paths only, and media types detected from content."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from shared.documents.files import DocumentFiles
from shared.documents.media_types import BMP, JPEG, PDF, PNG, TEXT, TIFF, UNSUPPORTED, WEBP, ZIP, detect_media_type
from shared.errors import BodyTooLarge
from shared.ids import DOCUMENT, new_id


class Broken(io.BytesIO):
    """A client that disconnects during the upload."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 2_000_000:
            raise ConnectionResetError
        return super().read(size)


def test_bytes_are_stored_with_their_digest(tmp_path: Path) -> None:
    files, document_id, data = DocumentFiles(tmp_path), new_id(DOCUMENT), b"x" * 3_000_000
    stored = files.store(document_id, io.BytesIO(data), limit=len(data))
    assert (stored.size, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert files.path(document_id, "original").read_bytes() == data
    files.remove(document_id)
    files.remove(document_id)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("source", "fault"), [(io.BytesIO(b"x" * 3_000_000), BodyTooLarge), (Broken(b"x" * 4_000_000), OSError)])
def test_a_failed_upload_leaves_no_file(tmp_path: Path, source: io.BytesIO, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        DocumentFiles(tmp_path).store(new_id(DOCUMENT), source, limit=2_999_999)
    assert list(tmp_path.iterdir()) == []


def test_giving_a_folder_never_replaces_an_existing_one(tmp_path: Path) -> None:
    files = DocumentFiles(tmp_path)
    first, second, receiver = (new_id(DOCUMENT) for _ in range(3))
    for document_id in (first, second):
        files.store(document_id, io.BytesIO(document_id.encode()), limit=100)
    files.move_if_absent(first, receiver)
    files.move_if_absent(second, receiver)
    files.move_if_absent(receiver, receiver)
    assert files.path(receiver, "original").read_text() == first
    assert [folder.name for folder in tmp_path.iterdir()] == [receiver]


def test_a_failed_rewrite_keeps_the_old_file(tmp_path: Path) -> None:
    files, document_id = DocumentFiles(tmp_path), new_id(DOCUMENT)
    with files.replace(document_id, "pages.jsonl") as target:
        target.write(b"old")
    with pytest.raises(TypeError), files.replace(document_id, "pages.jsonl") as target:
        target.writelines([b"half", "no bytes"])  # type: ignore[list-item]
    assert [path.read_bytes() for path in (tmp_path / document_id).iterdir()] == [b"old"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "doc_..", "doc_" + "/" * 26, "job_" + "0" * 26, ""])
def test_paths_are_made_from_document_ids_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the id"):
        DocumentFiles(tmp_path).path(name, "original")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"%PDF-1.7\n...", PDF),
        (b"junk before\n%PDF-1.4\n", PDF),
        (b"", TEXT),
        ("Größe, naïve, 漢字".encode(), TEXT),
        ("a" * 65_535 + "é", TEXT),  # a character across the end of the bytes that are read
        ("Größe".encode("utf-16"), TEXT),
        (b"\xfe\xff" + "Größe".encode("utf-16-be"), TEXT),
        (("Die Größe der Straße übertrifft die Höhe. " * 20).encode("latin-1"), TEXT),
        (("これは日本語の文章です。" * 20).encode("shift_jis"), TEXT),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", PNG),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", JPEG),
        (b"II*\x00\x08\x00\x00\x00", TIFF),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", WEBP),
        (b"BM\x3a\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00", BMP),
        (b"BMW and others", TEXT),
        (b"PK\x03\x04\x14\x00\x06\x00", ZIP),
        (b"text with \x01 a control character", UNSUPPORTED),
        (b"\xff\xfeodd", UNSUPPORTED),
    ],
)
def test_the_media_type_is_detected_from_content(tmp_path: Path, data: bytes | str, expected: str) -> None:
    path = tmp_path / "named.exe"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    assert detect_media_type(path) == expected


def test_the_package_imports_no_heavy_library() -> None:
    program = "import sys, shared.documents.store, shared.documents.files, shared.documents.media_types; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"torch", "numpy", "chromadb", "transformers", "pypdf", "pypdfium2", "chardet"}
