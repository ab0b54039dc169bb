"""Request models: the single source for validation and for ``/openapi.json``."""
