"""``/v1``: OpenAI's API. Each call is a job, submitted and followed as native ones are."""
