"""The Flask application."""

from importlib import import_module
from typing import Any

from flask import Flask, Response, request
from flask_cors import CORS

from api.audit import record_actions
from api.auth import Authenticator, require_keys, split_url
from api.caller import CallerOfRequest
from api.compression import compress_responses
from api.errors import register_error_handlers
from api.form_parsing import FormRequest
from api.job_waiter import JobWaiter
from api.openai.response_headers import add_job_headers
from api.openapi.document import ApiDescription
from api.request_ids import name_requests
from api.request_metrics import measure_requests
from api.route_rules import RouteRule
from api.services import Services
from shared.audit_log import AuditLog, audit_log_of
from shared.disk_space import DiskSpace
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.errors import InvalidRequest, UnsupportedEncoding
from shared.jobs.administration import JobAdministration
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.completion_listener import CompletionListener
from shared.jobs.event_streams import Follower
from shared.jobs.job_actions import JobActions
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.owner_use import OwnerUse
from shared.jobs.pauses import Pauses
from shared.jobs.queries import JobQueries
from shared.jobs.servable_models import ServableModels
from shared.jobs.stats import StatsReader
from shared.jobs.stats_history import StatsHistory
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.jobs.usage import UsageLedger
from shared.jobs.worker_registry import WorkerRegistry
from shared.models.catalogue import load_catalogue
from shared.openai.batches import RequestBatches
from shared.openai.conversations import Conversations
from shared.openai.files import FileStore
from shared.openai.responses.store import StoredResponses
from shared.owners.store import ApiKeys
from shared.packaged_files import installed_version
from shared.redis_connection import connect
from shared.sessions.listing import SessionList
from shared.sessions.store import Sessions
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries
from shared.webhooks.endpoints import Endpoints
from shared.webhooks.ssrf import AddressPolicy, parse_networks

# The modules of api/routes, in the order in which /openapi.json lists their calls.
ROUTES = (
    *(
        "generate",
        "jobs",
        "events",
        "batches",
        "uploads",
        "collections",
        "documents",
        "document_pages",
        "chat",
        "tutorial_chat",
        "tutorial_compat",
        "webhooks",
        "me",
        "attention",
    ),
    *(
        "openai.chat_completions",
        "openai.completions",
        "openai.embeddings",
        "openai.rerank",
        "openai.responses",
        "openai.conversations",
        "openai.models",
        "openai.files",
        "openai.batches",
        "openai.vector_stores",
        "openai.vector_store_files",
        "openai.vector_store_batches",
        "openai.tokenization",
    ),
    *(
        "models",
        "health",
        "metrics",
        "stats",
        "usage",
        "dead_letters",
        "gpus",
        "admin_jobs",
        "queues",
        "overview",
        "owners",
        "keys",
        "web_ui",
        "api_docs",
    ),
)

# Response headers that a page of an allowed origin may read, beyond those that every page may.
EXPOSED_HEADERS = (
    *("Idempotent-Replay", "Location", "Retry-After", "x-should-retry", "Enginehouse-Version"),
    *("x-request-id", "x-job-id", "x-ignored-params"),
)
REDIS_CONNECTIONS = 5


class OriginRefused(InvalidRequest):
    """A page of another site sent the request. Browsers send some requests without a preflight, so the server must reject them."""

    status = 403
    code = "origin_refused"


def import_routes() -> list[Any]:
    """The modules of all routes, in order, with everything that they import."""
    return [import_module(f"api.routes.{name}") for name in ROUTES]


def create_app(settings: Settings) -> Flask:
    """Create the application. It makes no connection before the first request.

    Raises SettingsError if the models file or the keys file is invalid, and TypeError if a route has no description or no scope.
    """
    # The web page has its own route for files; Flask would also serve a folder named "static".
    app = Flask("enginehouse", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.request_class = FormRequest
    app.url_rule_class = RouteRule
    # A path with two slashes is a 404 in JSON, not a redirect to another call.
    app.url_map.merge_slashes = False
    audit_log = audit_log_of(settings)
    app.extensions["enginehouse"] = _create_services(settings, audit_log)
    for routes in import_routes():
        app.register_blueprint(routes.blueprint)
    app.extensions["openapi"] = ApiDescription(app)
    compress_responses(app)
    measure_requests(app)
    name_requests(app)
    add_job_headers(app)
    record_actions(app, audit_log)
    register_error_handlers(app)
    _set_default_headers(app)
    _reject_encoded_bodies(app)
    _reject_foreign_pages(app, settings)
    require_keys(app, app.extensions["enginehouse"].authenticator, settings.api_threads)
    return app


def _create_services(settings: Settings, audit_log: AuditLog) -> Services:
    # A client is waiting: a clear 503 within two seconds is better than many retries.
    # Hundreds of threads share a few connections, because a command takes a fraction of a millisecond.
    client = connect(settings.redis_url, timeout=1.5, retries=0, connections=REDIS_CONNECTIONS)
    broker = CeleryBroker(client)
    broker.prepare()
    queries = JobQueries(client)
    disk_space = DiskSpace(settings.data_dir, settings.min_free_bytes)
    catalogue = load_catalogue(settings.models_file, engine=settings.engine)
    worker_registry, assignments = WorkerRegistry(client), ModelAssignments(client)
    submitter = JobSubmitter(client, settings, broker.wake, requester=CallerOfRequest())
    transitions = JobTransitions(client, settings, broker.wake)
    responses = StoredResponses(client)
    job_actions, keys = JobActions(transitions, submitter), ApiKeys(client)
    return Services(
        settings=settings,
        redis=client,
        submitter=submitter,
        transitions=transitions,
        queries=queries,
        job_actions=job_actions,
        administration=JobAdministration(queries, job_actions),
        pauses=Pauses(client),
        worker_registry=worker_registry,
        assignments=assignments,
        stats_reader=StatsReader(client),
        stats_history=StatsHistory(client),
        usage_ledger=UsageLedger(client),
        owner_use=OwnerUse(client),
        all_documents=Documents(client, settings),
        files=DocumentFiles(settings.documents_dir, disk_space),
        text_index=TextIndex(settings.text_index_dir),
        sessions=Sessions(client, settings),
        session_list=SessionList(client),
        file_store=FileStore(client, settings, disk_space),
        request_batches=RequestBatches(client),
        catalogue=catalogue,
        all_models=ServableModels(settings, catalogue, worker_registry, assignments),
        keys=keys,
        authenticator=Authenticator(settings, keys, audit_log),
        job_waiter=JobWaiter(queries, CompletionListener(settings.redis_url), settings),
        follower=Follower(settings.redis_url),
        endpoints=Endpoints(client),
        deliveries=Deliveries(client),
        address_policy=AddressPolicy(parse_networks(settings.webhook_allow)),
        url_policy=AddressPolicy(parse_networks(settings.url_allow), setting="ENGINEHOUSE_URL_ALLOW"),
        disk_space=disk_space,
        responses=responses,
        conversations=Conversations(client, settings, responses),
    )


def _set_default_headers(app: Flask) -> None:
    server_version = installed_version()

    @app.after_request
    def set_default_headers(response: Response) -> Response:
        # Responses belong to one owner, and none is to be taken for another type than it has.
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        if server_version:
            response.headers["Enginehouse-Version"] = server_version
        return response


def _reject_encoded_bodies(app: Flask) -> None:
    """Reject compressed bodies. Reading one as it arrives would parse compressed bytes, and decoding it could turn a small
    body into a huge one."""

    @app.before_request
    def check_encoding() -> None:
        for header in ("Content-Encoding", "Transfer-Encoding"):
            value = request.headers.get(header, "")
            if {encoding.strip().lower() for encoding in value.split(",")} - {"", "identity", "chunked"}:
                raise UnsupportedEncoding(f"{header}: {value[:80]} is not supported. Send the body as it is.")


def _reject_foreign_pages(app: Flask, settings: Settings) -> None:
    """Reject requests of pages of other sites in the user's browser: while no key is needed, they would reach the jobs."""
    allowed = {origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()}
    if allowed:
        CORS(app, origins=sorted(allowed), expose_headers=EXPOSED_HEADERS)

    @app.before_request
    def check_origin() -> None:
        origin = request.headers.get("Origin")
        if origin is None or origin in allowed or split_url(origin).netloc == request.host:
            return
        raise OriginRefused(
            f"Pages of {origin[:200]} may not call this server. Add the origin to ENGINEHOUSE_CORS_ORIGINS to allow it."
        )
