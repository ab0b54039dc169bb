"""The life of a job: its record in Redis, the moves that change it, the tickets that wake workers, its events."""
