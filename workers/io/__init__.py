"""The io pool: work that waits more than it computes. Retrieval for answers, deletion, webhooks."""
