"""Services of the application, which all requests of a process share, and the owner of the current request."""

from dataclasses import dataclass
from typing import cast

import redis
from flask import current_app

from api.auth import Authenticator
from api.caller import caller
from api.job_waiter import JobWaiter
from shared.disk_space import DiskSpace
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.ids import JOB, is_id
from shared.jobs.administration import JobAdministration
from shared.jobs.event_streams import Follower
from shared.jobs.job_actions import JobActions, job_not_found
from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.jobs.models import Job
from shared.jobs.pauses import Pauses
from shared.jobs.queries import JobQueries
from shared.jobs.servable_models import ServableModels
from shared.jobs.stats import StatsReader
from shared.jobs.stats_history import StatsHistory
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.jobs.usage import UsageLedger
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.models.catalogue import Catalogue
from shared.openai.batches import RequestBatches
from shared.openai.files import FileStore
from shared.openai.responses.store import StoredResponses
from shared.sessions.listing import SessionList
from shared.sessions.store import Sessions
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries
from shared.webhooks.endpoints import Endpoints
from shared.webhooks.ssrf import AddressPolicy


@dataclass(frozen=True)
class Services:
    """The services of one application, created when it starts. All are safe to use from many threads."""

    settings: Settings
    redis: redis.Redis
    submitter: JobSubmitter
    transitions: JobTransitions
    queries: JobQueries
    job_actions: JobActions
    administration: JobAdministration
    pauses: Pauses
    worker_registry: WorkerRegistry
    assignments: ModelAssignments
    stats_reader: StatsReader
    stats_history: StatsHistory
    usage_ledger: UsageLedger
    documents: Documents
    files: DocumentFiles
    text_index: TextIndex
    sessions: Sessions
    session_list: SessionList
    file_store: FileStore
    request_batches: RequestBatches
    catalogue: Catalogue
    models: ServableModels
    authenticator: Authenticator
    job_waiter: JobWaiter
    follower: Follower
    endpoints: Endpoints
    deliveries: Deliveries
    address_policy: AddressPolicy
    disk_space: DiskSpace
    responses: StoredResponses

    def live_workers(self) -> list[Worker]:
        """Workers that sent a heartbeat lately."""
        return self.worker_registry.alive(3 * self.settings.renew_seconds)

    def active_assignments(self) -> list[ModelAssignment]:
        """Assignments of live workers, and of workers that may come back within moments."""
        return self.assignments.list_active(2 * self.settings.lease_seconds)


def services() -> Services:
    """The services of the application that handles the current request."""
    return cast(Services, current_app.extensions["enginehouse"])


def owner() -> str:
    """The owner who makes the current request."""
    return caller().owner


def find_owned_job(job_id: str, timeout: float = 0) -> Job:
    """The owner's job, once it has ended or after ``timeout`` seconds. Raises NotFound, also for another owner's job."""
    context = services()
    # An id that is not one could be the key of something else. Another owner's job must not be waited for.
    job = context.queries.get_job(job_id) if is_id(JOB, job_id) else None
    if job is None or job.owner != owner():
        raise job_not_found(job_id)
    if timeout <= 0 or job.status.final:
        return job
    return context.job_waiter.wait_until_final(job_id, timeout) or job
