"""Celery worker that ingests documents: ``celery -A workers.cpu.app worker -P prefork -c <processes>``."""

import os
from collections.abc import Mapping, Sequence

from shared.documents.data_state import DataState, DataStateService
from shared.documents.index_health import report_silence
from shared.documents.store import Documents
from shared.documents.trash import Trash, TrashCleaner
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queries import JobQueries
from shared.jobs.queue_names import CPU_QUEUE
from shared.jobs.submission import JobSubmitter
from shared.models.catalogue import load_catalogue
from shared.redis_connection import connect
from shared.settings import from_environment
from workers.cpu.archives.unpack import unpack
from workers.cpu.ingest import ingest
from workers.cpu.reindex import reindex
from workers.cpu.sandbox.sandbox import missing_protections
from workers.cpu.unreadable_files import UnreadableFiles
from workers.index.embedder import Embedders
from workers.index.search_index import SearchIndex
from workers.runtime.attempt import Handler
from workers.runtime.celery_worker import CeleryWorker, Pool
from workers.runtime.maintenance import MaintenanceService

settings = from_environment(os.environ)


def build_handlers() -> Mapping[str, Handler]:
    """Handlers by job kind. Called in each child process, because neither a connection nor a model survives a fork."""
    client = connect(settings.redis_url)
    documents, queries = Documents(client, settings), JobQueries(client)
    submitter = JobSubmitter(client, settings, CeleryBroker(client).wake)
    threads = max(1, (os.cpu_count() or 1) // settings.cpu_workers)
    embedders = Embedders(load_catalogue(settings.models_file), threads=threads, device=settings.embedding_device)
    search_index = SearchIndex.from_settings(documents, settings, on_timeout=lambda: report_silence(client))
    return {
        "ingest": lambda attempt: ingest(attempt, documents, settings, embedders, search_index, queries.must_give_way),
        "unpack": lambda attempt: unpack(attempt, documents, submitter, queries, settings),
        "reindex": lambda attempt: reindex(attempt, documents, settings, embedders, search_index, queries.must_give_way),
    }


def build_services() -> Sequence[MaintenanceService]:
    client = connect(settings.redis_url)
    documents = Documents(client, settings)
    return [
        DataStateService(DataState(client, settings)),
        UnreadableFiles(settings.documents_dir, documents, settings.unreadable_file_seconds),
        TrashCleaner(Trash(settings.trash_dir), settings.trash_seconds),
    ]


app = CeleryWorker(
    settings,
    Pool(
        name="cpu",
        queues=(CPU_QUEUE,),
        slots=settings.cpu_workers,
        prefork=True,
        build_handlers=build_handlers,
        find_problems=missing_protections,
        build_services=build_services,
    ),
).app
