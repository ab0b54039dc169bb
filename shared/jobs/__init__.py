"""Jobs: the records in Redis, the transitions that change them, the wake-ups for workers, and the events."""
