"""Celery worker of the io pool, for search, deletion and webhooks: ``celery -A workers.io.app worker -P threads -c <threads>``.

It is a pool of its own, so that ten thousand documents in ingestion never delay a question.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence

from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.errors import ModelUnavailable
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

logger = logging.getLogger(__name__)

# How often a server without documents checks whether it has one by now.
FIRST_DOCUMENT_POLL_SECONDS = 2.0
# A process that exits while torch is being imported aborts, so the exit waits this long for the warm-up.
WARM_UP_EXIT_SECONDS = 20.0

settings = from_environment(os.environ)
stopping = threading.Event()
warm_up_threads: list[threading.Thread] = []
webhook_dispatchers: list[WebhookDispatcher] = []


def build_handlers() -> Mapping[str, Handler]:
    """The handlers of this pool. Their embedding model is loaded in the background."""
    embedders = Embedders(load_catalogue(settings.models_file), threads=1, device=settings.embedding_device)
    warm_up = threading.Thread(
        target=_warm_up, args=[DocumentFiles(settings.documents_dir), embedders], name="warm-up", daemon=True
    )
    warm_up_threads.append(warm_up)
    warm_up.start()
    return io_handlers(connect(settings.redis_url, retries=STEADY_RETRIES), settings, embedders)


def _warm_up(files: DocumentFiles, embedders: Embedders) -> None:
    """Load the embedding model as soon as there is a document, so that the first question does not wait for it.

    It takes seconds and a few hundred MB, which a server that only generates should not pay.
    """
    while files.is_empty():
        if stopping.wait(FIRST_DOCUMENT_POLL_SECONDS):
            return
    try:
        embedders.warm()
    except ModelUnavailable as error:
        logger.warning("the embedding model was not loaded in advance: %s", error)


def build_services() -> Sequence[MaintenanceService]:
    client = connect(settings.redis_url)
    documents = Documents(client, settings)
    return [IndexMonitor(client, documents, SearchIndex.from_settings(documents, settings))]


def start_webhooks(runtime: WorkerRuntime) -> None:
    """Deliver webhooks beside the jobs until the worker drains."""
    dispatcher = WebhookDispatcher(settings, runtime.worker.id, runtime.draining)
    webhook_dispatchers.append(dispatcher)
    dispatcher.start_threads()


def finish_background_work() -> None:
    """Wait for running deliveries and for the warm-up of the embedding model."""
    stopping.set()
    for dispatcher in webhook_dispatchers:
        dispatcher.stop_threads()
    for thread in warm_up_threads:
        thread.join(WARM_UP_EXIT_SECONDS)


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
        on_stop=finish_background_work,
    ),
).app
