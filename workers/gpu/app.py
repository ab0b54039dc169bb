"""The Celery worker that holds one model: ``celery -A workers.gpu.app worker -P threads -c <jobs at once>``.

Its model and device come from ENGINEHOUSE_WORKER_MODEL and ENGINEHOUSE_WORKER_DEVICE.
"""

import os

from shared.jobs.tickets import generation_queue
from shared.models.catalogue import load_catalogue
from shared.settings import from_environment
from workers.celery_worker import CeleryWorker, Pool
from workers.gpu.model_worker import ModelWorker

settings = from_environment(os.environ)
catalogue = load_catalogue(settings.models_file, engine=settings.engine)
entry = catalogue.get(settings.worker_model) if settings.worker_model else catalogue.default()
model_worker = ModelWorker(entry, settings)

app = CeleryWorker(
    settings,
    Pool(
        name="gpu",
        queues=(generation_queue(entry.name),),
        slots=entry.max_in_flight,
        prefork=False,
        bodies=lambda: {"generate": model_worker.generate},
        model=entry.name,
        phase="loading",
        opened=model_worker.open,
        closed=model_worker.close,
    ),
).app
