"""Handlers of the cpu pool by job kind: ingest, unpack, reindex, draw."""

import os
from collections.abc import Mapping

import redis

from shared.disk_space import DiskSpace
from shared.documents.index_health import report_silence
from shared.documents.store import Documents
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queries import JobQueries
from shared.jobs.submission import JobSubmitter
from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from workers.cpu.archives.unpack import unpack
from workers.cpu.ingest import ingest, raise_if_deleted
from workers.cpu.pages.draw import draw
from workers.cpu.pages.draw import raise_if_deleted as raise_if_not_drawable
from workers.cpu.reindex import reindex
from workers.index.embedder import Embedders
from workers.index.search_index import SearchIndex
from workers.runtime.attempt import CheckedHandler, Handler


def cpu_handlers(client: redis.Redis, settings: Settings) -> Mapping[str, Handler]:
    """The handlers, which share one embedding model and one client of the index."""
    documents, queries = Documents(client, settings), JobQueries(client)
    submitter = JobSubmitter(client, settings, CeleryBroker(client).wake)
    threads = max(1, (os.cpu_count() or 1) // settings.cpu_workers)
    embedders = Embedders(
        load_catalogue(settings.models_file),
        threads=threads,
        device=settings.embedding_device,
        socket=settings.embedding_socket,
    )
    search_index = SearchIndex.from_settings(documents, settings, on_timeout=lambda: report_silence(client))
    disk_space = DiskSpace(settings.data_dir, settings.min_free_bytes)
    return {
        "ingest": CheckedHandler(
            handle=lambda attempt: ingest(
                attempt,
                documents,
                settings,
                embedders.stopped_by(attempt.raise_if_stopped),
                search_index,
                queries.must_give_way,
            ),
            check_subject=lambda attempt: raise_if_deleted(attempt, documents, settings, search_index),
        ),
        "draw": CheckedHandler(
            handle=lambda attempt: draw(attempt, documents, settings, disk_space),
            check_subject=lambda attempt: raise_if_not_drawable(attempt, documents, settings),
        ),
        "unpack": lambda attempt: unpack(attempt, documents, submitter, queries, settings),
        "reindex": lambda attempt: reindex(
            attempt, documents, settings, embedders.stopped_by(attempt.raise_if_stopped), search_index, queries.must_give_way
        ),
    }
