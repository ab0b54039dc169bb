"""WSGI entry point: ``gunicorn api.wsgi:app``."""

import os
import resource
import sys
from contextlib import suppress

from api.app import create_app
from shared import logs
from shared.redis_connection import OUTAGE
from shared.settings_sources import from_environment
from shared.tracing import configure_tracing

settings = from_environment(os.environ)
logs.configure(settings.log_level, form=settings.log_format, levels=settings.log_levels)
configure_tracing("api", settings)
# Each waiting client needs a file descriptor, and the usual limit of 1,024 is lower than the number of clients that may wait.
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if soft != resource.RLIM_INFINITY:
    descriptors = 4 * settings.api_threads
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(soft, descriptors if hard == resource.RLIM_INFINITY else min(descriptors, hard)), hard)
    )
# A thread that waits for the interpreter lock wakes up after each interval to request it. One event makes hundreds of readers wait
# for the lock; with the default of 5 ms a quarter of the work was waking them up (benchmarks.streams).
sys.setswitchinterval(0.02)
app = create_app(settings)
with suppress(*OUTAGE):  # the first request tries again
    app.extensions["enginehouse"].authenticator.apply_keys_file()
