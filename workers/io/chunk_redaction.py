"""Chunk redaction: removes one chunk of a document from its files and its indexes, so that no reindex brings the text back."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from shared.documents.files import DocumentFiles, FileName
from shared.documents.models import Collection
from shared.documents.text_index import IndexedChunk
from workers.index.search_index import SearchIndex


def redact_chunk(
    files: DocumentFiles, search_index: SearchIndex, collection: Collection, document_id: str, position: int
) -> int | None:
    """Remove the chunk at ``position``; return how many chunks are left, or None if there is no such chunk.

    Raises IndexUnavailable.
    """
    chunks = search_index.document_chunks(collection.index, document_id)
    target = next((chunk for chunk in chunks if chunk.position == position), None)
    if target is None:
        return None
    # The files first: every later index is built from them.
    _redact_files(files, document_id, target, [chunk for chunk in chunks if chunk is not target])
    search_index.remove_from_collection(collection.id, document_id, position=position)
    return len(chunks) - 1


def _redact_files(files: DocumentFiles, document_id: str, target: IndexedChunk, others: Sequence[IndexedChunk]) -> None:
    """Remove a chunk from ``chunks.jsonl``, and blank in ``pages.jsonl`` the characters that no other chunk covers.

    Characters are blanked rather than removed, so the ranges of all other chunks stay valid.
    """
    same_page = [other for other in others if other.page == target.page]
    _write(files, document_id, "pages.jsonl", _blanked(_rows(files, document_id, "pages.jsonl"), target, same_page))
    target_range = (target.page, target.start, target.end)
    rows = _rows(files, document_id, "chunks.jsonl")
    kept = (row for row in rows if (row["page"], row["start"], row["end"]) != target_range)
    _write(files, document_id, "chunks.jsonl", kept)


def _blanked(pages: Iterator[dict[str, Any]], target: IndexedChunk, others: Sequence[IndexedChunk]) -> Iterator[dict[str, Any]]:
    for page in pages:
        if page["number"] == target.page:
            text = list(page["text"])
            for offset in range(target.start, min(target.end, len(text))):
                if not any(other.start <= offset < other.end for other in others):
                    text[offset] = " "
            page["text"] = "".join(text)
        yield page


def _rows(files: DocumentFiles, document_id: str, name: FileName) -> Iterator[dict[str, Any]]:
    with files.path(document_id, name).open("rb") as source:
        for line in source:
            yield json.loads(line)


def _write(files: DocumentFiles, document_id: str, name: FileName, rows: Iterator[dict[str, Any]]) -> None:
    with files.replace(document_id, name) as target:
        for row in rows:
            target.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
