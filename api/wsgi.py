"""What gunicorn serves: ``gunicorn api.wsgi:app``."""

import os
import resource

from api.app import create_app
from shared import logs
from shared.settings import from_environment

settings = from_environment(os.environ)
logs.configure(settings.log_level)
# Each waiting client holds a descriptor, and the usual limit of 1,024 is fewer than may wait.
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if soft != resource.RLIM_INFINITY:
    most = 4 * settings.api_threads
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most if hard == resource.RLIM_INFINITY else min(most, hard)), hard))
app = create_app(settings)
