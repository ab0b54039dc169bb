"""Where work is done: one pool of workers for models, one for documents, one for waiting on other services."""
