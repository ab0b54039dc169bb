"""``enginehouse ingest``: find files, upload them concurrently, show progress and print a summary."""
