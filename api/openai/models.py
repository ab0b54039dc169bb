"""Models as OpenAI's API lists them."""

import time
from typing import Any

from api.caller import caller
from api.model_state import known_context, model_state
from api.services import services
from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.worker_registry import Worker
from shared.models.catalogue import RequestedModel

# Models have no time of creation; the one of the server's start is stable while it runs.
STARTED_AT = int(time.time())


def list_openai_models() -> dict[str, Any]:
    """The models that a request can use now: those that a worker serves or may load."""
    context = services()
    workers, assignments = context.live_workers(), context.active_assignments()
    requestable = [
        requested
        for entry in context.catalogue.models
        for requested in (RequestedModel(entry), *(RequestedModel(entry, adapter) for adapter in entry.adapters))
    ]
    models = [
        _model_json(requested, workers, assignments) for requested in requestable if caller().rights.allows_model(requested.name)
    ]
    data = [model for model in models if model["state"] != "not_served"]
    names = [model["id"] for model in data]
    return {
        "object": "list",
        "data": data,
        "models": [{"name": name, "model": name, "slug": name, "display_name": name} for name in names],
    }


def find_openai_model(name: str) -> dict[str, Any]:
    """One model of the models file. Raises NotFound, and Forbidden if the key may not use it."""
    context = services()
    requested = context.catalogue.find_requested(name)
    caller().rights.require_model(requested.name)
    return _model_json(requested, context.live_workers(), context.active_assignments())


def _model_json(requested: RequestedModel, workers: list[Worker], assignments: list[ModelAssignment]) -> dict[str, Any]:
    entry = requested.entry
    state, _, serving = model_state(entry, workers, assignments)
    return {
        "id": requested.name,
        "object": "model",
        "created": STARTED_AT,
        "owned_by": "enginehouse",
        "max_model_len": known_context(entry, serving),
        "parent": entry.name if requested.adapter else None,
        "task": entry.task,
        "state": state,
    }
