"""The Celery app for Flower, with the broker's address and settings but without tasks.

It is created at import, as ``celery --app`` requires.
"""

import os

from shared.jobs.celery_broker import celery_app
from shared.settings import from_environment

app = celery_app(from_environment(os.environ))
