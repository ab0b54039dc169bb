"""Flower, on a Celery app with the broker's address and settings but without tasks: ``python -m cli.local.flower_app OPTIONS``.

The app is created at import, for ``celery --app`` as well. Flower shows its metrics to callers without a login; here they need it.
It learns the names of queues from the answers of workers, minutes after its start; here they come from the models file. While no event
arrives, it checks its connection each second; here every few seconds.
"""

import os
import sys
from typing import Any

import flower.events
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from tornado.web import authenticated

from shared.jobs.celery_broker import celery_app
from shared.jobs.queue_names import generation_queue, text_queue
from shared.models.catalogue import GENERATE, load_catalogue
from shared.process_exit import exit_now
from shared.settings_sources import from_environment

CONNECTION_CHECK_SECONDS = 5


class PatientReceiver(flower.events.EventReceiver):  # type: ignore[misc]
    """Waits longer for an event than Celery does before it looks at its connection. An event, or the end of the connection, ends the
    wait at once."""

    def consume(self, *arguments: Any, **options: Any) -> Any:
        return super().consume(*arguments, safety_interval=CONNECTION_CHECK_SECONDS, **options)


flower.events.EventReceiver = PatientReceiver
Metrics.get = authenticated(Metrics.get)

settings = from_environment(os.environ)
catalogue = load_catalogue(settings.models_file, engine=settings.engine)
models = [model.name for model in catalogue.models if model.task == GENERATE]
queues = ["cpu", "io", *map(generation_queue, models), *map(text_queue, models)]

BaseHandler.get_active_queue_names = lambda handler: queues

app = celery_app(settings)

if __name__ == "__main__":
    exit_now(app.start(["--quiet", "flower", *sys.argv[1:]]) or 0)
