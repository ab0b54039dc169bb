"""``GET /models``: the models of the models file and the state of their workers."""

from typing import Any

from flask import Blueprint, jsonify

from api.caller import caller
from api.model_state import known_context, model_state
from api.openapi.operation import Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services
from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.worker_registry import Worker
from shared.models.catalogue import ModelEntry, RequestedModel

blueprint = Blueprint("models", __name__)


@blueprint.get("/models")
@describe(
    Operation(
        tag="Models and health",
        summary="List the models and the state of their workers",
        description="A plain JSON list, as in the chat_gp_me tutorial. Models that the key may not use are left out.",
        replies={200: Reply(description="All models.", model=responses.Model, many=True)},
    )
)
def list_models() -> RouteResponse:
    context = services()
    workers, assignments = context.live_workers(), context.active_assignments()
    return jsonify(
        [
            _model_json(entry, workers, assignments)
            for entry in context.catalogue.models
            if caller().rights.allows_model(entry.name)
        ]
    )


def _model_json(entry: ModelEntry, workers: list[Worker], assignments: list[ModelAssignment]) -> dict[str, Any]:
    state, best, serving = model_state(entry, workers, assignments)
    return {
        "name": entry.name,
        "url": entry.url,
        "object": "model",
        "task": entry.task,
        "engine": entry.engine,
        "adapters": [
            requested.name
            for requested in (RequestedModel(entry, adapter) for adapter in entry.adapters)
            if caller().rights.allows_model(requested.name)
        ],
        "dtype": entry.dtype,
        "max_context": known_context(entry, serving),
        "max_in_flight": entry.max_in_flight,
        "max_tokens": entry.max_tokens,
        "chat_template": entry.chat_template,
        "stop": list(entry.stop),
        "gpus": entry.gpus,
        "replicas": entry.replicas,
        "devices": None if entry.devices is None else list(entry.devices),
        "gpu_share": entry.gpu_share,
        "load": entry.load,
        "pinned": entry.pinned,
        "keep_alive": entry.keep_alive,
        "parameters": entry.parameters,
        "default": entry.default,
        "state": state,
        "reason": best.message or None if best and best.phase != "ready" else None,
        "progress": best.fraction if best and best.phase in ("loading", "warming") else None,
        "attention": ((best.engine or {}).get("attention") or None) if best else None,
        "workers": len(serving),
    }
