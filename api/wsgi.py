"""What gunicorn serves: ``gunicorn api.wsgi:app``."""

import os

from api.app import create_app
from shared import logs
from shared.settings import from_environment

settings = from_environment(os.environ)
logs.configure(settings.log_level)
app = create_app(settings)
