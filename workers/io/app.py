"""Celery worker of the io pool, for search, deletion and webhooks: ``celery -A workers.io.app worker -P threads -c <threads>``.

It is a pool of its own, so that ten thousand documents in ingestion never delay a question.
"""

import os
from collections.abc import Mapping, Sequence

from shared.documents.store import Documents
from shared.jobs.queue_names import IO_QUEUE
from shared.models.catalogue import load_catalogue
from shared.redis_connection import STEADY_RETRIES, connect
from shared.settings import from_environment
from workers.index.embedder import Embedders
from workers.index.search_index import SearchIndex
from workers.io.handlers import io_handlers
from workers.io.index_monitor import IndexMonitor
from workers.io.webhooks.dispatcher import WebhookDispatcher
from workers.runtime.attempt import Handler
from workers.runtime.celery_worker import CeleryWorker, Pool
from workers.runtime.maintenance import MaintenanceService
from workers.runtime.worker_runtime import WorkerRuntime

settings = from_environment(os.environ)
webhook_dispatchers: list[WebhookDispatcher] = []


def build_handlers() -> Mapping[str, Handler]:
    """The handlers of this pool. Their embedding model is loaded by the first search."""
    embedders = Embedders(load_catalogue(settings.models_file), threads=1, device=settings.embedding_device)
    return io_handlers(connect(settings.redis_url, retries=STEADY_RETRIES), settings, embedders)


def build_services() -> Sequence[MaintenanceService]:
    client = connect(settings.redis_url)
    documents = Documents(client, settings)
    return [IndexMonitor(client, documents, SearchIndex.from_settings(documents, settings))]


def start_webhooks(runtime: WorkerRuntime) -> None:
    """Deliver webhooks beside the jobs until the worker drains."""
    dispatcher = WebhookDispatcher(settings, runtime.worker.id, runtime.draining)
    webhook_dispatchers.append(dispatcher)
    dispatcher.start_threads()


def stop_webhooks() -> None:
    """Wait for running deliveries."""
    for dispatcher in webhook_dispatchers:
        dispatcher.stop_threads()


app = CeleryWorker(
    settings,
    Pool(
        name="io",
        queues=(IO_QUEUE,),
        slots=settings.io_workers,
        prefork=False,
        build_handlers=build_handlers,
        build_services=build_services,
        on_start=start_webhooks,
        on_stop=stop_webhooks,
    ),
).app
