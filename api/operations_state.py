"""The state of operations as administrators see it: queues, workers, gpu workers and dead letters in JSON."""

from typing import Any

from api.queue_state import reason_of_queue
from api.responses import listed_job_json
from api.services import services
from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.queue_names import model_of_queue
from shared.jobs.serialization import seconds
from shared.jobs.stats import WaitingQueue
from shared.jobs.worker_registry import Worker

MAX_OWNERS = 100
"""How many owners of a queue are listed."""


def list_queues_json() -> list[dict[str, Any]]:
    """All queues that have had a job."""
    workers = counted_workers()
    return [queue_json(queue, workers) for queue in services().stats_reader.list_queues(MAX_OWNERS)]


def list_workers_json() -> list[dict[str, Any]]:
    """All live workers by id."""
    drained = services().pauses.since("worker")
    return [worker_json(worker, drained) for worker in sorted(counted_workers(), key=lambda worker: worker.id)]


def list_gpus_json() -> list[dict[str, Any]]:
    """All gpu workers, those included that are away."""
    workers = gpu_workers()
    return [gpu_json(assignment, workers.get(assignment.name)) for assignment in services().assignments.list_all()]


def list_dead_letters_json(limit: int) -> list[dict[str, Any]]:
    """The newest dead letters with their owners."""
    return [{**listed_job_json(job), "owner": job.owner} for job in services().queries.dead_letters(limit)]


def queue_json(queue: WaitingQueue, workers: list[Worker]) -> dict[str, Any]:
    """A queue, and the workers that serve it."""
    serving = [worker for worker in workers if queue.queue in worker.queues]
    reason = reason_of_queue(queue.queue, serving, is_paused=queue.paused_at is not None)
    shared_out = "fair_share" if reason == "worker" and serving else reason
    return {
        "queue": queue.queue,
        "object": "queue",
        "model": model_of_queue(queue.queue),
        "waiting": queue.waiting,
        "oldest_seconds": seconds(queue.oldest_ms),
        "waiting_for": reason if queue.waiting else "",
        "paused_at": seconds(queue.paused_at),
        "workers": len(serving),
        "slots": sum(worker.slots for worker in serving),
        "running": sum(worker.running for worker in serving),
        "owners": [
            {
                "owner": owner.owner,
                "waiting": owner.waiting,
                "end_users": owner.end_users,
                "oldest_seconds": seconds(owner.oldest_ms),
                "service": owner.service,
                "waiting_for": shared_out if turn else reason,
            }
            for turn, owner in enumerate(queue.owners)
        ],
    }


def worker_json(worker: Worker, drained: dict[str, int]) -> dict[str, Any]:
    """A worker; ``drained`` has the times at which workers were drained."""
    return {
        "id": worker.id,
        "object": "worker",
        "name": worker.name,
        "pool": worker.pool,
        "queues": list(worker.queues),
        "model": worker.model or None,
        "state": worker.phase,
        "reason": worker.message or None if worker.phase != "ready" else None,
        "slots": worker.slots,
        "running": worker.running,
        "idle_seconds": seconds(worker.idle_ms),
        "since": seconds(worker.since),
        "seen_at": seconds(worker.seen_at),
        "version": worker.version or None,
        "drained_at": seconds(drained.get(worker.name)),
    }


def gpu_json(assignment: ModelAssignment, worker: Worker | None) -> dict[str, Any]:
    """An assignment and the state of its live worker."""
    return {
        "gpu": assignment.name,
        "number": assignment.number,
        "object": "gpu",
        "devices": list(assignment.devices),
        "desired_model": assignment.desired_model or None,
        "requested_by": assignment.requested_by,
        "requested_at": seconds(assignment.requested_at),
        "model": (worker.model or None) if worker else None,
        "state": worker.phase if worker else "away",
        "reason": worker.message or None if worker and worker.phase != "ready" else None,
        "progress": worker.fraction if worker and worker.phase in ("loading", "warming") else None,
        "running": worker.running if worker else 0,
        "idle_seconds": seconds(worker.idle_ms) if worker else None,
        "loadable_models": list(assignment.loadable_models),
        "unloadable_models": dict(assignment.unloadable_models),
        "engine": worker.engine if worker else None,
        "gpus": list(worker.gpus) if worker else [],
    }


def gpu_workers() -> dict[str, Worker]:
    """The live gpu workers by name. Of an old and a new process with the same name, the newer one counts."""
    workers = sorted(counted_workers(), key=lambda worker: worker.started)
    return {worker.name: worker for worker in workers if worker.pool == "gpu"}


def counted_workers() -> list[Worker]:
    """The live workers with the number of jobs that each runs now. Their heartbeats are up to five seconds old."""
    return services().worker_registry.count_running(services().live_workers())
