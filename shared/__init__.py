"""What the HTTP face and the workers agree on: jobs, models, documents, sessions, settings."""
