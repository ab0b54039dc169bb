"""``POST /generate``: one generation job."""

from typing import Any

from flask import Blueprint

from api.request_parsing import body, wait_seconds
from api.responses import Answer
from api.routes.webhooks import job_webhook
from api.schemas.requests import Generate, Sampling, Source
from api.services import owner, services
from api.submission import answer, idempotency, submit
from shared.errors import InvalidValue, ModelNotServed
from shared.jobs.celery_broker import IO_QUEUE, generation_queue
from shared.jobs.models import Job
from shared.jobs.transitions import Submission
from shared.models.catalogue import GENERATE, ModelEntry

blueprint = Blueprint("generate", __name__)

SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "stop", "seed")


@blueprint.post("/generate")
def generate() -> Answer:
    """Submit a generation. ``text`` is the guide's way to ask: it waits for the answer unless told otherwise."""
    wanted = body(Generate)
    prompt = wanted.text if wanted.text is not None else wanted.prompt
    spec: dict[str, Any] = {}
    if wanted.text is not None:
        spec["messages"] = [{"role": "user", "content": wanted.text}]
    elif wanted.messages is not None:
        spec["messages"] = [message.model_dump() for message in wanted.messages]
    else:
        spec["prompt"] = prompt
    characters = len(prompt) if prompt is not None else sum(len(message.content) for message in wanted.messages or ())
    wait = wait_seconds()
    if wait is None:
        wait = services().settings.chat_wait_seconds if wanted.text is not None else 0
    job = submit_generation(wanted, spec, wait, characters=characters)
    return answer(job, wait)


def submit_generation(wanted: Sampling, spec: dict[str, Any], wait: float, *, characters: int, session: str = "") -> Job:
    """Check what only the server can check, submit, wait, and return the job. Refusals write nothing.

    Raises NotFound (model, collection or session), ModelNotServed, InvalidValue.
    """
    here = services()
    most = here.settings.max_prompt_characters
    if characters > most:
        raise InvalidValue(f"prompt: may have at most {most} characters over all messages, not {characters}", param="prompt")
    repeatable = idempotency(wanted.model_dump())
    entry = served_model(wanted.model)
    told = job_webhook(wanted.webhook)
    spec.update((name, getattr(wanted, name)) for name in SAMPLING)
    queue = generation_queue(entry.name)
    if wanted.collection is not None or wanted.use_rag:
        source = wanted.collection or Source(name=here.settings.default_collection)
        collection = here.documents.find_collection(owner(), source.name)
        spec["collection"] = collection.id
        top_k = source.top_k or wanted.passages or here.settings.retrieve_top_k
        spec["retrieval"] = {**source.model_dump(exclude={"name"}), "top_k": top_k}
        spec["then"] = queue
        queue = IO_QUEUE
    submission = Submission(
        kind="generate",
        queue=queue,
        spec=spec,
        owner=owner(),
        model=entry.name,
        session=session,
        priority=wanted.priority,
        cost=characters // 4 + 2 * (wanted.max_tokens or entry.max_tokens),
        expires_ms=None if wanted.expires_in is None else int(wanted.expires_in * 1000),
        timeout_ms=None if wanted.timeout is None else int(wanted.timeout * 1000),
        webhook=told,
        metadata=wanted.metadata,
        idempotency_key=repeatable.key,
        fingerprint=repeatable.fingerprint,
    )
    return submit(submission, wait)


def served_model(name: str | None) -> ModelEntry:
    """The model that a request asks for. Raises NotFound, InvalidValue or ModelNotServed."""
    here = services()
    entry = here.catalogue.get(name) if name is not None else here.catalogue.default()
    if entry.task != GENERATE:
        raise InvalidValue(f"model: {entry.name} turns text into vectors; it does not generate", param="model")
    if here.worker_registry.has_served(entry.name) or _can_be_loaded(entry):
        return entry
    raise ModelNotServed(
        f"no worker serves model {entry.name}; start one with: enginehouse worker gpu --model {entry.name}",
        param="model",
        retry_after=5,
    )


def _can_be_loaded(entry: ModelEntry) -> bool:
    here = services()
    return here.settings.load_on_demand and any(
        entry.name in assignment.loadable_models for assignment in here.active_assignments()
    )
