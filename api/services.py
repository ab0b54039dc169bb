"""Services of the application, which all requests of a process share, and the owner of the current request."""

from dataclasses import dataclass
from typing import cast

import redis
from flask import current_app, g, has_app_context, has_request_context

from api.auth import Authenticator
from api.caller import Caller, caller
from api.job_waiter import JobWaiter
from shared.disk_space import DiskSpace
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.jobs.administration import JobAdministration
from shared.jobs.event_streams import Follower
from shared.jobs.job_actions import JobActions
from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.jobs.owner_use import OwnerUse
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
from shared.openai.conversations import Conversations
from shared.openai.files import FileStore
from shared.openai.responses.store import StoredResponses
from shared.owners.store import ApiKeys
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
    owner_use: OwnerUse
    all_documents: Documents
    files: DocumentFiles
    text_index: TextIndex
    sessions: Sessions
    session_list: SessionList
    file_store: FileStore
    request_batches: RequestBatches
    catalogue: Catalogue
    all_models: ServableModels
    keys: ApiKeys
    authenticator: Authenticator
    job_waiter: JobWaiter
    follower: Follower
    endpoints: Endpoints
    deliveries: Deliveries
    address_policy: AddressPolicy
    url_policy: AddressPolicy
    disk_space: DiskSpace
    responses: StoredResponses
    conversations: Conversations

    @property
    def documents(self) -> Documents:
        """Collections and documents, restricted to those that the key of the current request may use."""
        made_by: Caller | None = g.get("caller") if has_app_context() else None
        return self.all_documents if made_by is None else self.all_documents.restricted_to(made_by.rights)

    @property
    def models(self) -> ServableModels:
        """Models that requests can name, restricted to those that the key of the current request may use."""
        made_by: Caller | None = g.get("caller") if has_app_context() else None
        return self.all_models if made_by is None else self.all_models.restricted_to(made_by.rights)

    def live_workers(self) -> list[Worker]:
        """Workers that sent a heartbeat lately. A request reads them once, as each queued job of a list needs them twice."""
        if not has_request_context():
            return self.worker_registry.alive(3 * self.settings.renew_seconds)
        if "live_workers" not in g:
            g.live_workers = self.worker_registry.alive(3 * self.settings.renew_seconds)
        return list(g.live_workers)

    def active_assignments(self) -> list[ModelAssignment]:
        """Assignments of live workers, and of workers that may come back within moments."""
        return self.assignments.list_active(2 * self.settings.lease_seconds)


def services() -> Services:
    """The services of the application that handles the current request."""
    return cast(Services, current_app.extensions["enginehouse"])


def owner() -> str:
    """The owner who makes the current request."""
    return caller().owner
