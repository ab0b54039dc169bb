"""Pages of documents for one request: from the cache, or drawn by a job that the request waits for."""

from dataclasses import dataclass
from typing import TypeVar

from api.services import owner, services
from api.submission import SHORT_JOB_SECONDS, submit_job
from shared.documents.media_types import PDF
from shared.documents.models import IN_PROGRESS, Document
from shared.documents.page_drawings import PageDrawings, PageLayout, read_page_text
from shared.errors import Conflict, EnginehouseError, NotFound, Unavailable
from shared.jobs.models import Job, Status
from shared.jobs.queue_names import PAGE_QUEUE
from shared.jobs.submission import Submission

PRIORITY = 0

T = TypeVar("T")

_NOT_FOUND = ("page_not_found", "no_page_images", "original_deleted", NotFound.code)
_IMPOSSIBLE = ("encrypted", "page_unreadable")


@dataclass(frozen=True, kw_only=True)
class RequestedPage:
    """A page of a document, its stored text ("" if the document could not be read), and a range of its characters."""

    document: Document
    number: int
    text: str
    start: int
    end: int

    def picture(self, width: int) -> bytes:
        """Its picture, with the range marked. Raises NotFound, Conflict if it cannot be drawn, and Unavailable."""
        cache = self._cache
        picture = cache.picture(self.number, self.text, width, self.start, self.end)
        if picture is None:
            self._draw(width)
            picture = cache.picture(self.number, self.text, width, self.start, self.end)
        return _required(picture, self.number)

    def layout(self) -> PageLayout | None:
        """Where its characters are, or None if that cannot be known. Raises NotFound and Unavailable."""
        if self.document.media_type != PDF:
            return None
        layout = self._cache.layout(self.number, self.text)
        if layout is None:
            try:
                self._draw(0)
            except (Conflict, NotFound):
                services().documents.get(owner(), self.document.id)  # raises if it was deleted meanwhile
                return None
            layout = self._cache.layout(self.number, self.text)
        return _required(layout, self.number)

    @property
    def _cache(self) -> PageDrawings:
        return PageDrawings(services().files, self.document.id)

    def _draw(self, width: int) -> None:
        spec = {"document_id": self.document.id, "page": self.number, "width": width, "start": self.start, "end": self.end}
        submission = Submission(
            kind="draw",
            queue=PAGE_QUEUE,
            spec=spec,
            owner=owner(),
            priority=PRIORITY,
            expires_ms=SHORT_JOB_SECONDS * 1000,  # nobody waits for it any longer
        )
        job = submit_job(submission, SHORT_JOB_SECONDS).job
        if job.status.final:
            # A list of jobs is for work that somebody asked for, not for each page that was looked at.
            services().transitions.delete(job.id, owner())
        if job.status is not Status.COMPLETED:
            raise _drawing_error(job, self.number)


def find_page(document: Document, number: int, start: int = 0, end: int = 0, *, read: bool = False) -> RequestedPage:
    """A page of a document. Raises NotFound if it has none with this number.

    With ``read``, the page must have been read: raises NotFound if the document could not be, and Conflict while it is being read.
    """
    if document.pages and number > document.pages:
        raise NotFound(
            f"Document {document.id} has {document.pages} pages, and no page {number}.", code="page_not_found", param="page"
        )
    text = read_page_text(services().files, document.id, number)
    if read and text is None:
        if document.status in IN_PROGRESS:
            raise Conflict(
                f"Document {document.id} is {document.status}. Its pages have a text once it was read.", code="document_not_read"
            )
        raise NotFound(f"Document {document.id} has no page {number} that was read.", code="page_not_found", param="page")
    return RequestedPage(document=document, number=number, text=text or "", start=start, end=end)


def _drawing_error(job: Job, page: int) -> EnginehouseError:
    """The error for a page that was not drawn."""
    error = job.error or {}
    code, message = str(error.get("code", "")), str(error.get("message", ""))
    if code in _NOT_FOUND:
        return NotFound(message, code=code)
    if code in _IMPOSSIBLE:
        return Conflict(message, code=code)
    return _not_drawn(page)


def _not_drawn(page: int) -> Unavailable:
    return Unavailable(
        f"Page {page} was not drawn in time, as the workers are busy or away.", code="page_not_drawn", retry_after=5
    )


def _required(drawn: T | None, page: int) -> T:
    """What a job has drawn. Between its end and now the text of the page may have changed."""
    if drawn is None:
        raise _not_drawn(page)
    return drawn
