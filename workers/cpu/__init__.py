"""The CPU pool: documents become pages, pages chunks, chunks vectors in the index."""
