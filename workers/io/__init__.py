"""The io pool: what waits more than it computes. Retrieval for answers, and deletion."""
