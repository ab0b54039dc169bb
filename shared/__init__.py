"""Code that the API and the workers share: jobs, models, documents, sessions, settings."""
