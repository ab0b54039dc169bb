"""The Celery app that Flower looks through: the broker's address and settings, and no task.

Made at import, as ``celery --app`` wants it; knows nothing of workers.
"""

import os

from shared.jobs.celery_broker import celery_app
from shared.settings import from_environment

app = celery_app(from_environment(os.environ))
