"""What the calls of one API process share: made once when the process starts to serve, found by ``services()``."""

from dataclasses import dataclass
from typing import cast

import redis
from flask import current_app, g

from api.waiting import Waiting
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.jobs.lifecycle import Lifecycle
from shared.jobs.overview import Overviews
from shared.jobs.seats import Seat, Seats
from shared.jobs.streams import Follower
from shared.jobs.workforce import Workforce
from shared.models.catalogue import Catalogue
from shared.sessions.store import Sessions
from shared.settings import Settings
from shared.webhooks.addresses import Guard
from shared.webhooks.deliveries import Deliveries
from shared.webhooks.endpoints import Endpoints


@dataclass(frozen=True)
class Services:
    """Safe to use from every thread of the process."""

    settings: Settings
    redis: redis.Redis
    lifecycle: Lifecycle
    workforce: Workforce
    seats: Seats
    overviews: Overviews
    documents: Documents
    files: DocumentFiles
    sessions: Sessions
    catalogue: Catalogue
    waiting: Waiting
    follower: Follower
    endpoints: Endpoints
    deliveries: Deliveries
    guard: Guard

    def taken_seats(self) -> list[Seat]:
        """The seats that workers sit on, or come back to within moments."""
        return self.seats.taken(2 * self.settings.lease_seconds)


def services() -> Services:
    """The services of the application that answers the current request."""
    return cast(Services, current_app.extensions["enginehouse"])


def owner() -> str:
    """Who makes the current request."""
    return str(g.owner)
