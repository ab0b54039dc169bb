"""The Flask application."""

from importlib import import_module
from urllib.parse import urlsplit

from flask import Flask, request
from flask_cors import CORS

from api import auth, errors
from api.job_waiter import JobWaiter
from api.routes import metrics
from api.services import Services
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.errors import InvalidRequest
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.completion_listener import CompletionListener
from shared.jobs.event_streams import Follower
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.stats import StatsReader
from shared.jobs.transitions import Lifecycle
from shared.jobs.worker_registry import WorkerRegistry
from shared.models.catalogue import load_catalogue
from shared.owners.store import Owners
from shared.redis_connection import connect
from shared.sessions.store import Sessions
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries
from shared.webhooks.endpoints import Endpoints
from shared.webhooks.ssrf import AddressPolicy, parse_networks

# The modules of api/routes, one for each resource.
ROUTES = (
    *("api_docs", "batches", "chat", "collections", "dead_letters", "documents", "events", "generate", "gpus", "health", "jobs"),
    *("metrics", "models", "tutorial_compat", "uploads", "web_ui", "webhooks"),
)

# What a page of an allowed origin may read of an answer's headers, besides what every page may.
TOLD_BY_HEADERS = ("Idempotent-Replay", "Location", "Retry-After", "x-should-retry")
REDIS_CONNECTIONS = 5
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OriginRefused(InvalidRequest):
    """A page of another site called; browsers send some requests without asking, so the server must refuse them."""

    status = 403
    code = "origin_refused"


class HostRefused(InvalidRequest):
    """The request was meant for another name."""

    code = "host_refused"


def create_app(settings: Settings) -> Flask:
    """The application. No connection is made before the first request.

    Raises SettingsError when the models file cannot be used.
    """
    # The page serves its own files; Flask would serve any folder named static that it is started beside.
    app = Flask("enginehouse", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # An answer is JSON of the call that was made: a path with two slashes is none of ours, not a redirect to another.
    app.url_map.merge_slashes = False
    catalogue = load_catalogue(settings.models_file, engine=settings.engine)
    # A client waits for an answer here: better a clear 503 within two seconds than many tries.
    # Hundreds of threads share a few connections: a command takes a fraction of a millisecond, a connection stays.
    client = connect(settings.redis_url, timeout=1.5, retries=0, connections=REDIS_CONNECTIONS)
    lifecycle = Lifecycle(client, settings, CeleryBroker(client).wake)
    app.extensions["enginehouse"] = Services(
        settings=settings,
        redis=client,
        lifecycle=lifecycle,
        worker_registry=WorkerRegistry(client),
        assignments=ModelAssignments(client),
        stats_reader=StatsReader(client),
        documents=Documents(client),
        files=DocumentFiles(settings.documents_dir),
        sessions=Sessions(client, settings),
        catalogue=catalogue,
        waiting=JobWaiter(lifecycle, CompletionListener(settings.redis_url), settings.api_threads),
        follower=Follower(settings.redis_url),
        endpoints=Endpoints(client),
        deliveries=Deliveries(client),
        guard=AddressPolicy(parse_networks(settings.webhook_allow)),
    )
    for name in ROUTES:
        app.register_blueprint(import_module(f"api.routes.{name}").blueprint)
    metrics.install(app)
    errors.install(app)
    _guard_browsers(app, settings)
    auth.install(app, Owners(client))
    return app


def _guard_browsers(app: Flask, settings: Settings) -> None:
    """While nobody has to log in, a page from elsewhere in the user's browser must not reach the jobs."""
    allowed = {origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()}
    if allowed:
        CORS(app, origins=sorted(allowed), expose_headers=TOLD_BY_HEADERS)
    local_only = settings.host in LOOPBACK

    @app.before_request
    def refuse_foreign_pages() -> None:
        # Against DNS rebinding: a name of the attacker's that points to loopback is not one of these.
        if local_only and urlsplit(f"//{request.host}").hostname not in LOOPBACK:
            raise HostRefused("this server answers to 127.0.0.1 and localhost only")
        origin = request.headers.get("Origin")
        if origin is None or origin in allowed or urlsplit(origin).netloc == request.host:
            return
        raise OriginRefused(f"pages of {origin[:200]} may not call this server; ENGINEHOUSE_CORS_ORIGINS can allow them")
