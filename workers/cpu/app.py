"""Worker of the cpu pool, which ingests documents: ``python -m workers.cpu``."""

import os
from collections.abc import Mapping, Sequence

from shared.documents.data_state import DataState, DataStateService
from shared.documents.page_drawings import PageDrawingsCleaner
from shared.documents.store import Documents
from shared.documents.trash import Trash, TrashCleaner
from shared.jobs.job_index import JobIndex
from shared.jobs.queue_names import CPU_QUEUE, PAGE_QUEUE
from shared.redis_connection import STEADY_RETRIES, connect
from shared.settings_sources import from_environment
from workers.cpu.handlers import cpu_handlers
from workers.cpu.ocr.installation import find_problems as find_ocr_problems
from workers.cpu.sandbox.sandbox import missing_protections
from workers.cpu.unreadable_files import UnreadableFiles
from workers.runtime.attempt import Handler
from workers.runtime.celery_worker import CeleryWorker, Pool
from workers.runtime.host_locks import HostLocks
from workers.runtime.maintenance import MaintenanceService

settings = from_environment(os.environ)


def build_handlers() -> Mapping[str, Handler]:
    """Called in each child process, because neither a connection nor a model survives a fork."""
    return cpu_handlers(connect(settings.redis_url, retries=STEADY_RETRIES), settings)


def build_services() -> Sequence[MaintenanceService]:
    client = connect(settings.redis_url)
    documents = Documents(client, settings)
    locks = HostLocks(settings.data_dir)
    locks.check_at_start()
    return [
        locks,
        DataStateService(DataState(client, settings, index_jobs=JobIndex(client).add_missing)),
        UnreadableFiles(settings.documents_dir, documents, settings.unreadable_file_seconds),
        TrashCleaner(Trash(settings.trash_dir), settings.trash_seconds),
        PageDrawingsCleaner(settings.documents_dir),
    ]


worker = CeleryWorker(
    settings,
    Pool(
        name="cpu",
        queues=(CPU_QUEUE,),
        side_queues={PAGE_QUEUE: 1},
        slots=settings.cpu_workers,
        prefork=True,
        build_handlers=build_handlers,
        find_problems=lambda: [*missing_protections(), *find_ocr_problems(settings.ocr_engine, settings.ocr_language_list)],
        build_services=build_services,
    ),
)
