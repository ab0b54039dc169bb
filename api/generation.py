"""Generation jobs: build and submit the job of ``POST /generate`` or of a chat turn."""

from typing import Any

from api.job_webhook import job_webhook
from api.request_parsing import read_idempotency_key
from api.schemas.requests.generation import CollectionSource, GenerationOptions
from api.services import owner, services
from api.submission import SubmittedJob, submit_job
from shared.errors import InvalidValue, ModelNotServed
from shared.jobs.queue_names import IO_QUEUE, generation_queue
from shared.jobs.submission import Submission
from shared.models.catalogue import GENERATE, ModelEntry
from shared.models.engine_features import check_generation

# A rough average of texts in European languages, to estimate work before a prompt is tokenized.
CHARACTERS_PER_TOKEN = 4

SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "stop", "seed")


def submit_generation(
    options: GenerationOptions, prompt: dict[str, Any], timeout: float, *, characters: int, session: str = ""
) -> SubmittedJob:
    """Check what only the server can check, submit the job, wait for it, and return it. A rejected request writes nothing.

    ``prompt`` is the part of the spec that holds the input. Raises NotFound (model, collection or session), ModelNotServed
    and InvalidValue.
    """
    check_prompt_length(characters, "prompt")
    idempotency = read_idempotency_key(options.model_dump())
    entry = find_generation_model(options.model)
    webhook = job_webhook(options.webhook)
    queue = generation_queue(entry.name)
    retrieval = _retrieval_spec(options, queue)
    spec = {**prompt, **{name: getattr(options, name) for name in SAMPLING}, **retrieval}
    check_generation(entry, spec)
    submission = Submission(
        kind="generate",
        queue=IO_QUEUE if retrieval else queue,
        spec=spec,
        owner=owner(),
        model=entry.name,
        session=session,
        priority=options.priority,
        cost=expected_service(entry, characters, options.max_tokens),
        expires_ms=None if options.expires_in is None else int(options.expires_in * 1000),
        timeout_ms=None if options.timeout is None else int(options.timeout * 1000),
        webhook=webhook,
        metadata=options.metadata,
        idempotency_key=idempotency.key,
        fingerprint=idempotency.fingerprint,
    )
    return submit_job(submission, timeout)


def check_prompt_length(characters: int, param: str) -> None:
    """Raise InvalidValue if a prompt has more characters, over all its messages, than the settings allow."""
    limit = services().settings.max_prompt_characters
    if characters > limit:
        raise InvalidValue(f"{param}: may have at most {limit} characters over all messages, not {characters}", param=param)


def expected_service(entry: ModelEntry, characters: int, max_tokens: int | None) -> int:
    """Estimate the service of a generation, in tokens. A generated token costs about twice as much as a prompt token."""
    return characters // CHARACTERS_PER_TOKEN + 2 * (max_tokens or entry.max_tokens)


def find_generation_model(name: str | None) -> ModelEntry:
    """The model of a request, or the default one. Raises NotFound, InvalidValue or ModelNotServed."""
    context = services()
    entry = context.catalogue.get_model(name, task=GENERATE) if name is not None else context.catalogue.default()
    if entry.task != GENERATE:
        raise InvalidValue(f"Model {entry.name!r} is an embedding model and cannot generate text.", param="model")
    if context.worker_registry.has_served(entry.name) or _can_be_loaded(entry.name):
        return entry
    raise ModelNotServed(
        f"No worker serves model {entry.name!r}. Start one with: enginehouse worker gpu --model {entry.name}",
        param="model",
        retry_after=5,
    )


def _can_be_loaded(model: str) -> bool:
    context = services()
    return context.settings.load_on_demand and any(
        model in assignment.loadable_models for assignment in context.active_assignments()
    )


def _retrieval_spec(options: GenerationOptions, next_queue: str) -> dict[str, Any]:
    """The fields that a collection adds to the spec. Empty without a collection."""
    if options.collection is None and not options.use_rag:
        return {}
    context = services()
    source = options.collection or CollectionSource(name=context.settings.default_collection)
    collection = context.documents.find_collection(owner(), source.name)
    top_k = source.top_k or options.passages or context.settings.retrieve_top_k
    return {
        "collection": collection.id,
        "retrieval": {**source.model_dump(exclude={"name"}), "top_k": top_k},
        "then": next_queue,
    }
