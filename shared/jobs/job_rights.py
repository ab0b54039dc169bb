"""Which jobs an API key may see and change: those that it could have submitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.documents.store import Documents
from shared.errors import Forbidden
from shared.jobs.models import Job
from shared.rights import BATCHES, CHAT, DOCUMENTS, GENERATE, SEARCH, Rights

SCOPES_OF_JOBS: Final = (GENERATE, DOCUMENTS, CHAT, SEARCH, BATCHES)
_SCOPES_OF_KINDS: Final = {
    "generate": GENERATE,
    "embed": GENERATE,
    "rerank": GENERATE,
    "tokenize": GENERATE,
    "search": SEARCH,
    "request_batch": BATCHES,
}


def scope_of_job(job: Job) -> str:
    """The scope that submits such a job, by its chat or request batch, or else by its kind."""
    if job.session:
        return CHAT
    if job.line_of:
        return BATCHES
    return _SCOPES_OF_KINDS.get(job.kind, DOCUMENTS)


@dataclass(frozen=True, kw_only=True)
class JobRights:
    """The rights of a key with the ids of the collections that it may use; None for all."""

    rights: Rights
    collections: frozenset[str] | None

    def allows(self, job: Job) -> bool:
        """Whether the key may see and change a job."""
        return (
            self.rights.has_any((scope_of_job(job),))
            and (not job.model or self.rights.allows_model(job.model))
            and (self.collections is None or not job.collection or job.collection in self.collections)
        )

    def require(self, job: Job, read_spec: Callable[[str], Mapping[str, Any] | None]) -> None:
        """Raise Forbidden unless the key may see and change a job, whose spec ``read_spec`` returns."""
        self.rights.require_scope((scope_of_job(job),), f"Job {job.id}")
        if job.model:
            self.rights.require_model(job.model, "job")
        if self.collections is None:
            return
        used = set(filter(None, (job.collection,)))
        if job.kind == "generate":
            # A response of /v1 may search several collections.
            used |= set((read_spec(job.id) or {}).get("collections", ()))
        if not used <= self.collections:
            raise Forbidden(
                f"Job {job.id} uses a collection that your API key may not use.", code="permission_denied", param="job"
            )


def job_rights_of(rights: Rights, owner: str, documents: Documents) -> JobRights | None:
    """A filter for the owner's jobs that a key may see; None if it may see all. ``documents`` are restricted to its rights."""
    if rights.models is None and rights.collections is None and set(SCOPES_OF_JOBS) <= set(rights.scopes):
        return None
    if rights.collections is None:
        return JobRights(rights=rights, collections=None)
    return JobRights(rights=rights, collections=frozenset(collection.id for collection in documents.list_collections(owner)))
