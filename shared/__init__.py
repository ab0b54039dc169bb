"""Code that the API and the workers share: jobs, models, documents, sessions, settings."""

from shared import redis_import

redis_import.install()
