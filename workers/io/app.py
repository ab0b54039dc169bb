"""Worker of the io pool, for search, deletion, request batches and webhooks: ``python -m workers.io``.

It is a pool of its own, so that ten thousand documents in ingestion never delay a question.
"""

import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import redis

from shared.disk_space import DiskSpace
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.queue_names import FETCH_QUEUE, IO_QUEUE, REQUEST_BATCH_QUEUE
from shared.jobs.servable_models import ServableModels
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.jobs.worker_registry import WorkerRegistry
from shared.models.catalogue import load_catalogue
from shared.openai.batches import REQUEST_BATCH
from shared.openai.files import FileStore
from shared.redis_connection import STEADY_RETRIES, connect
from shared.settings_sources import from_environment
from workers.index.embedder import Embedders
from workers.index.search_index import SearchIndex
from workers.io.collection_expiry import CollectionExpiry
from workers.io.document_deletion import DocumentDeletion
from workers.io.file_maintenance import FileMaintenance
from workers.io.handlers import io_handlers, raise_if_dropped
from workers.io.index_monitor import IndexMonitor
from workers.io.url_fetch import FetchServices, fetch
from workers.io.webhooks.dispatcher import WebhookDispatcher
from workers.io.word_purger import WordPurger
from workers.runtime.attempt import Attempt, CheckedHandler, Handler, Result
from workers.runtime.celery_worker import CeleryWorker, Pool
from workers.runtime.host_locks import HostLocks
from workers.runtime.maintenance import MaintenanceService
from workers.runtime.worker_runtime import WorkerRuntime

if TYPE_CHECKING:
    from workers.io.request_batches.runner import BatchServices

settings = from_environment(os.environ)
webhook_dispatchers: list[WebhookDispatcher] = []


def build_handlers() -> Mapping[str, Handler]:
    """The handlers of this pool. Without an embedding server, the first search loads the embedding model."""
    embedders = Embedders(
        load_catalogue(settings.models_file), threads=1, device=settings.embedding_device, socket=settings.embedding_socket
    )
    client = connect(settings.redis_url, retries=STEADY_RETRIES)
    fetch_services = FetchServices.connect(client, settings)
    return {
        **io_handlers(client, settings, embedders),
        REQUEST_BATCH: request_batch_handler(client),
        "fetch": CheckedHandler(
            handle=lambda attempt: fetch(attempt, fetch_services),
            check_subject=lambda attempt: raise_if_dropped(fetch_services.documents, attempt.spec["collection_id"]),
        ),
    }


def request_batch_handler(client: redis.Redis) -> Handler:
    """The handler of request batches. What checks their requests is imported by the first batch: it is a seventh of all that this
    process would import."""

    @cache
    def services() -> "BatchServices":
        return batch_services(client)

    def run(attempt: Attempt) -> Result:
        from workers.io.request_batches.runner import run_request_batch

        return run_request_batch(attempt, services())

    return run


def batch_services(client: redis.Redis) -> "BatchServices":
    from workers.io.request_batches.runner import BatchServices

    disk_space = DiskSpace(settings.data_dir, settings.min_free_bytes)
    catalogue = load_catalogue(settings.models_file, engine=settings.engine)
    wake = CeleryBroker(client).wake
    return BatchServices(
        client=client,
        settings=settings,
        submitter=JobSubmitter(client, settings, wake),
        transitions=JobTransitions(client, settings, wake),
        models=ServableModels(settings, catalogue, WorkerRegistry(client), ModelAssignments(client)),
        files=FileStore(client, settings, disk_space),
        disk_space=disk_space,
    )


def build_services() -> Sequence[MaintenanceService]:
    client = connect(settings.redis_url)
    documents = Documents(client, settings)
    locks = HostLocks(settings.data_dir)
    locks.check_at_start()
    return [
        locks,
        IndexMonitor(client, documents, SearchIndex.from_settings(documents, settings)),
        WordPurger(client, TextIndex(settings.text_index_dir), settings.word_purge_seconds, time.monotonic()),
        FileMaintenance(client, settings),
        DocumentDeletion(documents, JobSubmitter(client, settings, CeleryBroker(client).wake)),
        CollectionExpiry(documents, JobSubmitter(client, settings, CeleryBroker(client).wake)),
    ]


def start_webhooks(runtime: WorkerRuntime) -> None:
    """Deliver webhooks beside the jobs until the worker drains."""
    dispatcher = WebhookDispatcher(settings, runtime.worker.id, runtime.draining)
    webhook_dispatchers.append(dispatcher)
    dispatcher.start_threads()


def stop_webhooks() -> None:
    """Wait for running deliveries."""
    for dispatcher in webhook_dispatchers:
        dispatcher.stop_threads()


worker = CeleryWorker(
    settings,
    Pool(
        name="io",
        queues=(IO_QUEUE,),
        side_queues={REQUEST_BATCH_QUEUE: settings.batch_runners, FETCH_QUEUE: settings.url_fetchers},
        slots=settings.io_workers,
        prefork=False,
        build_handlers=build_handlers,
        build_services=build_services,
        on_start=start_webhooks,
        on_stop=stop_webhooks,
    ),
)
