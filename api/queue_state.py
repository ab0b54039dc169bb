"""Queue state of a job: its position, its estimated wait, and what keeps it from running."""

from collections.abc import Sequence
from typing import Any

from api.services import services
from shared.jobs.models import Job
from shared.jobs.queue_names import model_of_queue
from shared.jobs.queue_snapshot import QueueSnapshot
from shared.jobs.serialization import seconds
from shared.jobs.worker_registry import Worker
from shared.owners.limits import effective_limits


def queue_state(job: Job) -> dict[str, Any]:
    """The fields that only a queued job has."""
    context = services()
    snapshot = context.queries.queue_snapshot(job)
    position = snapshot.position
    # Claims come at the rate of the past only if a worker is there.
    is_served = any(job.queue in worker.queues for worker in context.live_workers())
    return {
        "queue_position": position,
        "estimated_wait": snapshot.estimated_wait(position) if position and is_served else None,
        "not_before": seconds(job.not_before) if job.waiting == "retry_at" else None,
        "waiting_for": _waiting_for(job, snapshot),
    }


def _waiting_for(job: Job, snapshot: QueueSnapshot) -> str:
    """What keeps a queued job from running.

    ``retry_backoff``: the time of its next attempt. ``not_before``: the time before which it may not start. ``previous_turn``: the
    previous turn of its chat. ``model_loading``: its model is being loaded. ``gpu_busy``: another model occupies the GPU.
    ``model_not_loaded``: an operator has to load its model. ``paused``: an operator has paused the queue. ``fair_share``: another owner has received less service and comes first.
    ``concurrency_limit``: as many jobs with its concurrency key run as it allows. ``running_limit``: its owner or end user has as many running jobs as may run at once. ``worker``: no worker runs, or all are busy.
    """
    if job.waiting == "retry_at":
        return "retry_backoff" if job.attempt else "not_before"
    if job.waiting == "after":
        return "previous_turn"
    if job.waiting == "concurrency":
        return "concurrency_limit"
    context = services()
    workers = [worker for worker in context.live_workers() if job.queue in worker.queues]
    reason = reason_of_queue(job.queue, workers, is_paused=snapshot.is_paused)
    if reason != "worker":
        return reason
    # Those of the job's owner: an administrator may look at it, and a stream is written after its request has ended.
    limits = effective_limits(snapshot.owner_limits, context.settings)
    of_owner, of_user = limits["running_jobs"], limits["end_user_running_jobs"] if job.end_user else 0
    if (of_owner or of_user) and context.queries.is_at_running_limit(job, of_owner=of_owner, of_user=of_user):
        return "running_limit"
    return "fair_share" if workers and not snapshot.has_least_service else reason


def reason_of_queue(queue: str, workers: Sequence[Worker], *, is_paused: bool) -> str:
    """What keeps the next job of a queue, which these workers serve, from running."""
    if is_paused:
        return "paused"
    staying, model = [worker for worker in workers if worker.phase != "draining"], model_of_queue(queue)
    if not staying and model is not None:
        return _waiting_for_model(model)
    if staying and all(worker.phase in ("loading", "warming") for worker in staying):
        return "model_loading"
    return "worker"


def _waiting_for_model(model: str) -> str:
    """The reason for a model that no live worker has loaded."""
    context = services()
    assignments = context.active_assignments()
    if any(assignment.desired_model == model for assignment in assignments):
        return "model_loading"
    if any(model in assignment.loadable_models for assignment in assignments):
        return "gpu_busy" if context.settings.load_on_demand else "model_not_loaded"
    return "worker"
