"""Which jobs an API key may see and change: those that it could have submitted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

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
    """The scope that submits such a job: that of its chat or request batch, else that of its kind."""
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

    def require(self, job: Job, collections: Iterable[str] = ()) -> None:
        """Raise Forbidden unless the key may see and change a job. ``collections`` are further ones that it reads."""
        self.rights.require_scope((scope_of_job(job),), f"Job {job.id}")
        if job.model:
            self.rights.require_model(job.model, "job")
        used = {*filter(None, (job.collection,)), *collections}
        if self.collections is not None and not used <= self.collections:
            raise Forbidden(
                f"Job {job.id} uses a collection that your API key may not use.", code="permission_denied", param="job"
            )
