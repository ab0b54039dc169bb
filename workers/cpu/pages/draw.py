"""Handler of draw jobs: draws a page of a PDF for somebody who waits, and keeps it in the cache of its document.

These jobs have a queue of their own, which each process of the pool reads beside the document that it ingests: a page must not wait until a
long document was read.
"""

from typing import Any

from shared.disk_space import DiskSpace
from shared.documents.files import DocumentFiles
from shared.documents.media_types import PDF
from shared.documents.page_drawings import PageDrawings, PageLayout, read_ocr_lines, read_page_text
from shared.documents.store import Documents
from shared.errors import JobFailure, NotFound
from shared.settings import Settings
from workers.cpu.pages.drawing import PageRequest, draw_page
from workers.cpu.sandbox.child_process import ChildProcesses
from workers.runtime.attempt import AttemptHandle


def draw(attempt: AttemptHandle, documents: Documents, settings: Settings, disk_space: DiskSpace) -> dict[str, Any]:
    """Draw ``spec["page"]`` of ``spec["document_id"]``: the boxes of its characters and, if ``spec["width"]`` is not 0, its picture with
    the characters from ``spec["start"]`` to ``spec["end"]`` marked.

    Raises NotFound, JobFailure, whose code says what is wrong, and DiskFull.
    """
    spec, owner = attempt.spec, attempt.job.owner
    page, width, start, end = int(spec["page"]), int(spec["width"]), int(spec["start"]), int(spec["end"])
    document = documents.get(owner, spec["document_id"])
    if document.media_type != PDF:
        raise JobFailure("The format of the document has no pages that can be drawn.", code="no_page_images")
    disk_space.require()
    files = DocumentFiles(settings.documents_dir)
    text = read_page_text(files, document.id, page) or ""
    children = ChildProcesses()
    attempt.on_stop(children.kill)
    try:
        drawn = draw_page(
            files.path(document.id, "original"),
            PageRequest(
                page=page,
                text=text,
                width=width,
                start=start,
                end=end,
                lines=read_ocr_lines(files, document.id, page),
            ),
            memory_bytes=settings.parse_memory_bytes,
            children=children,
        )
    except FileNotFoundError:
        documents.get(owner, document.id)  # raises if the document was deleted meanwhile
        raise JobFailure("The file of the document was deleted, as it could not be read.", code="original_deleted") from None
    except JobFailure:
        attempt.raise_if_stopped()  # a stop kills the child, which then looks as if it had crashed
        raise
    cache = PageDrawings(files, document.id)
    cache.store_layout(page, text, PageLayout(width=drawn.width, height=drawn.height, boxes=drawn.boxes))
    if width:
        cache.store_picture(page, text, width, start, end, drawn.picture)
    cache.shrink()
    raise_if_deleted(attempt, documents, settings)
    return {"page": page, "width": drawn.width, "height": drawn.height, "bytes": len(drawn.picture)}


def raise_if_deleted(attempt: AttemptHandle, documents: Documents, settings: Settings) -> None:
    """Raise NotFound if the document was deleted, after removing what may have been stored in its folder since."""
    document_id = attempt.spec["document_id"]
    try:
        documents.get(attempt.job.owner, document_id, hidden=True)
    except NotFound:
        DocumentFiles(settings.documents_dir).remove(document_id)
        raise
