"""Queue names: which queue a job or a canary message is put on. A job queue and its Celery queue have the same name."""

IO_QUEUE = "io"
CPU_QUEUE = "cpu"
PAGE_QUEUE = "pages"
REQUEST_BATCH_QUEUE = "batches"
FETCH_QUEUE = "fetches"


def generation_queue(model: str) -> str:
    """The queue of generation jobs for one model."""
    return f"gpu.{model}"


def text_queue(model: str) -> str:
    """The queue of jobs that need only the tokenizer of a model. Its workers run them beside their generations."""
    return f"text.{model}"


def model_of_queue(queue: str) -> str | None:
    """The model whose jobs are in a queue, or None."""
    kind, _, model = queue.partition(".")
    return model if kind in ("gpu", "text") and model else None


def canary_queue(worker: str) -> str:
    """The queue that only this Celery worker reads. A worker that takes its canary in time is alive."""
    return f"canary.{worker}"
