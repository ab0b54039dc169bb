"""What the calls of one API process share: made once when the process starts to serve, found by ``services()``."""

from dataclasses import dataclass
from typing import cast

import redis
from flask import current_app, g

from api.job_waiter import JobWaiter
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.jobs.event_streams import Follower
from shared.jobs.model_assignments import ModelAssignment, ModelAssignments
from shared.jobs.stats import StatsReader
from shared.jobs.transitions import Lifecycle
from shared.jobs.worker_registry import WorkerRegistry
from shared.models.catalogue import Catalogue
from shared.sessions.store import Sessions
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries
from shared.webhooks.endpoints import Endpoints
from shared.webhooks.ssrf import AddressPolicy


@dataclass(frozen=True)
class Services:
    """Safe to use from every thread of the process."""

    settings: Settings
    redis: redis.Redis
    lifecycle: Lifecycle
    worker_registry: WorkerRegistry
    assignments: ModelAssignments
    stats_reader: StatsReader
    documents: Documents
    files: DocumentFiles
    sessions: Sessions
    catalogue: Catalogue
    waiting: JobWaiter
    follower: Follower
    endpoints: Endpoints
    deliveries: Deliveries
    guard: AddressPolicy

    def active_assignments(self) -> list[ModelAssignment]:
        """The seats that workers sit on, or come back to within moments."""
        return self.assignments.list_active(2 * self.settings.lease_seconds)


def services() -> Services:
    """The services of the application that answers the current request."""
    return cast(Services, current_app.extensions["enginehouse"])


def owner() -> str:
    """Who makes the current request."""
    return str(g.owner)
