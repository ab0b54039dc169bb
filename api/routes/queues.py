"""``/admin/queues`` and ``/admin/workers``: what waits and why, who works, and pauses of queues and workers."""

from typing import Any

from flask import Blueprint, jsonify

from api.audit import add_audit_details
from api.openapi.operation import Example, Operation, Reply, describe, in_path
from api.queue_state import reason_of_queue
from api.request_parsing import parse_body
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.schemas.requests.administration import QueuePause, WorkerDrain
from api.services import services
from shared.errors import InvalidValue, NotFound
from shared.jobs.queue_names import CPU_QUEUE, IO_QUEUE, generation_queue, model_of_queue, text_queue
from shared.jobs.serialization import seconds
from shared.jobs.stats import WaitingQueue
from shared.jobs.worker_registry import Worker
from shared.models.catalogue import GENERATE

blueprint = Blueprint("queues", __name__, url_prefix="/admin")

TAG = "Administration"
ADMIN_ONLY = "Needs the scope `admin`."
MAX_OWNERS = 100
QUEUE = in_path("queue", "Name of a queue: `cpu`, `io`, or `gpu.` or `text.` with the name of a model.", "cpu")
WORKER = in_path("worker", "Name of a worker.", "gpu0@vm")


@blueprint.get("/queues")
@describe(
    Operation(
        tag=TAG,
        summary="List queues with what waits in them, for whom and why",
        description=f"At most {MAX_OWNERS} owners of a queue are listed, in the order of their turns. {ADMIN_ONLY}",
        replies={200: Reply(description="All queues on one page.", model=responses.QueueList)},
    )
)
def list_queues() -> RouteResponse:
    workers = services().live_workers()
    return list_response([_queue_json(queue, workers) for queue in services().stats_reader.list_queues(MAX_OWNERS)])


@blueprint.put("/queues/<queue>")
@describe(
    Operation(
        tag=TAG,
        summary="Pause or resume a queue",
        description=(
            "No job is claimed from a paused queue; running jobs go on. A model whose queue is paused is not loaded on demand; with "
            f"`unload`, workers that hold it unload it. The pause survives restarts. {ADMIN_ONLY}"
        ),
        parameters=(QUEUE,),
        request_model=QueuePause,
        examples={
            "pause": Example(summary="Pause", body={"paused": True}),
            "resume": Example(summary="Resume", body={"paused": False}),
        },
        replies={200: Reply(description="The queue.", model=responses.Queue)},
    )
)
def pause_queue(queue: str) -> RouteResponse:
    context, body, model = services(), parse_body(QueuePause), model_of_queue(queue)
    known = {entry.queue: entry for entry in context.stats_reader.list_queues(MAX_OWNERS)}
    served = {
        name(entry.name)
        for entry in context.catalogue.models
        if entry.task == GENERATE
        for name in (generation_queue, text_queue)
    }
    if queue not in {*known, *served, CPU_QUEUE, IO_QUEUE}:
        raise NotFound(f"There is no queue {queue[:80]!r}; there are: {', '.join(sorted({*served, CPU_QUEUE, IO_QUEUE}))}.")
    if body.unload and (model is None or not body.paused):
        raise InvalidValue("unload: only with paused, and for the queue of a model", param="unload")
    add_audit_details(paused=body.paused, unload=body.unload)
    (context.pauses.pause if body.paused else context.pauses.resume)("queue", queue)
    if body.unload:
        for assignment in context.assignments.list_all():
            if assignment.desired_model == model:
                context.assignments.set_desired_model(assignment.name, "", "operator", expected=model)
    found = {entry.queue: entry for entry in context.stats_reader.list_queues(MAX_OWNERS)}
    paused_at = context.pauses.since("queue").get(queue)
    empty = WaitingQueue(queue=queue, waiting=0, oldest_ms=None, paused_at=paused_at, owners=())
    return jsonify(_queue_json(found.get(queue, empty), context.live_workers()))


@blueprint.get("/workers")
@describe(
    Operation(
        tag=TAG,
        summary="List the live workers",
        description=f"Each child process of a cpu worker is an entry. {ADMIN_ONLY}",
        replies={200: Reply(description="All live workers on one page.", model=responses.WorkerList)},
    )
)
def list_workers() -> RouteResponse:
    drained = services().pauses.since("worker")
    workers = sorted(services().live_workers(), key=lambda worker: worker.id)
    return list_response([_worker_json(worker, drained) for worker in workers])


@blueprint.put("/workers/<worker>")
@describe(
    Operation(
        tag=TAG,
        summary="Drain or resume a worker",
        description=(
            "A drained worker claims no job; its running jobs go on, and its processes stay. Once `running` is 0 it can be stopped "
            f"without interrupting anything. It stays drained after a restart. {ADMIN_ONLY}"
        ),
        parameters=(WORKER,),
        request_model=WorkerDrain,
        examples={"resume": Example(summary="Resume", body={"drained": False})},
        replies={200: Reply(description="The processes of the worker.", model=responses.WorkerList)},
    )
)
def drain_worker(worker: str) -> RouteResponse:
    context, body = services(), parse_body(WorkerDrain)
    found = [entry for entry in context.live_workers() if entry.name == worker]
    if not found and not context.pauses.is_paused("worker", worker):
        names = ", ".join(sorted({entry.name for entry in context.live_workers()})) or "none"
        raise NotFound(f"There is no live worker {worker[:80]!r}; there are: {names}.", code="worker_not_found")
    add_audit_details(drained=body.drained)
    (context.pauses.pause if body.drained else context.pauses.resume)("worker", worker)
    drained = context.pauses.since("worker")
    return list_response([_worker_json(entry, drained) for entry in sorted(found, key=lambda entry: entry.id)])


def _queue_json(queue: WaitingQueue, workers: list[Worker]) -> dict[str, Any]:
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


def _worker_json(worker: Worker, drained: dict[str, int]) -> dict[str, Any]:
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
