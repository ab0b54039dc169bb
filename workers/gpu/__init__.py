"""The model workers: each holds one model in an engine process of its own and runs many jobs on it at once."""
