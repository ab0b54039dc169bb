"""``/admin/queues`` and ``/admin/workers``: what waits and why, who works, and pauses of queues and workers."""

from flask import Blueprint, jsonify

from api.audit import add_audit_details
from api.openapi.operation import Example, Operation, Reply, describe, in_path
from api.operations_state import MAX_OWNERS, counted_workers, list_queues_json, list_workers_json, queue_json, worker_json
from api.request_parsing import parse_body
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.schemas.requests.administration import QueuePause, WorkerDrain
from api.services import services
from shared.errors import InvalidValue, NotFound
from shared.jobs.queue_names import CPU_QUEUE, IO_QUEUE, generation_queue, model_of_queue, text_queue
from shared.jobs.stats import WaitingQueue
from shared.models.catalogue import GENERATE

blueprint = Blueprint("queues", __name__, url_prefix="/admin")

TAG = "Administration"
ADMIN_ONLY = "Needs the scope `admin`."
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
    return list_response(list_queues_json())


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
    return jsonify(queue_json(found.get(queue, empty), counted_workers()))


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
    return list_response(list_workers_json())


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
    drained, found = context.pauses.since("worker"), context.worker_registry.count_running(found)
    return list_response([worker_json(entry, drained) for entry in sorted(found, key=lambda entry: entry.id)])
