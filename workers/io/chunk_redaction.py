"""Takes one chunk out of the files of a document, so that no later index can bring its text back.

Knows nothing of indexes and records.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from shared.documents.files import DocumentFiles, FileName
from shared.documents.text_index import IndexedChunk


def remove_from_files(files: DocumentFiles, document_id: str, gone: IndexedChunk, others: Sequence[IndexedChunk]) -> None:
    """Remove a chunk from ``chunks.jsonl``, and blank in ``pages.jsonl`` what stands in it and in none of the ``others``.

    The places of everything else stay as they are.
    """
    kept = [other for other in others if other.page == gone.page]
    _write(files, document_id, "pages.jsonl", _blanked(_rows(files, document_id, "pages.jsonl"), gone, kept))
    place = (gone.page, gone.start, gone.end)
    chunks = _rows(files, document_id, "chunks.jsonl")
    rest = (chunk for chunk in chunks if (chunk["page"], chunk["start"], chunk["end"]) != place)
    _write(files, document_id, "chunks.jsonl", rest)


def _blanked(pages: Iterator[dict[str, Any]], gone: IndexedChunk, others: Sequence[IndexedChunk]) -> Iterator[dict[str, Any]]:
    for page in pages:
        if page["number"] == gone.page:
            text = list(page["text"])
            for place in range(gone.start, min(gone.end, len(text))):
                if not any(other.start <= place < other.end for other in others):
                    text[place] = " "
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
