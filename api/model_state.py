"""State of a model: that of its best worker, or what keeps it from having one."""

from collections.abc import Sequence

from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.worker_registry import Worker
from shared.models.catalogue import EMBED, RERANK, ModelEntry

# A model has the state of its best worker, in this order.
STATES = ("ready", "warming", "loading", "draining", "failed")


def model_state(
    entry: ModelEntry, workers: Sequence[Worker], assignments: Sequence[ModelAssignment]
) -> tuple[str, Worker | None, list[Worker]]:
    """The state of a model, its best worker, and all workers that serve it."""
    # The workers that ingest and retrieve hold the embedding model.
    serving = [
        worker
        for worker in workers
        if worker.model == entry.name or (entry.task in (EMBED, RERANK) and worker.pool in ("cpu", "io"))
    ]
    best = min(serving, key=lambda worker: STATES.index(worker.phase), default=None)
    return best.phase if best else _state_without_worker(entry, assignments), best, serving


def known_context(entry: ModelEntry, serving: Sequence[Worker]) -> int | None:
    """Tokens that prompt and answer may have together: as its workers report it, else that of the models file, which may have none."""
    reported = [int(worker.engine["max_context"]) for worker in serving if worker.engine and worker.engine.get("max_context")]
    return min(reported, default=entry.max_context)


def _state_without_worker(entry: ModelEntry, assignments: Sequence[ModelAssignment]) -> str:
    """``loading`` if a worker is about to load it, ``unloaded`` if one could, else ``not_served``."""
    if any(assignment.desired_model == entry.name for assignment in assignments):
        return "loading"
    return "unloaded" if any(entry.name in assignment.loadable_models for assignment in assignments) else "not_served"
