"""The Celery app for Flower, with the broker's address and settings but without tasks.

It is created at import, as ``celery --app`` requires. Flower shows its metrics to callers without a login; here they need it.
"""

import os

from flower.views.monitor import Metrics
from tornado.web import authenticated

from shared.jobs.celery_broker import celery_app
from shared.settings import from_environment

Metrics.get = authenticated(Metrics.get)

app = celery_app(from_environment(os.environ))
