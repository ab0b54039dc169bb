"""Generation jobs: build and submit the job of ``POST /generate`` or of a chat turn."""

from collections.abc import Mapping
from typing import Any

from api.caller import caller
from api.job_webhook import job_webhook
from api.request_parsing import read_idempotency_key
from api.schemas.requests.generation import CollectionSource, GenerationOptions
from api.services import owner, services
from api.submission import SubmittedJob, submit_job
from shared.jobs.queue_names import IO_QUEUE, generation_queue
from shared.jobs.servable_models import expected_service, expected_tokens
from shared.jobs.submission import FIRST_TURN, Submission
from shared.models.engine_features import check_generation
from shared.rights import SEARCH

SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "deterministic")


def submit_generation(
    options: GenerationOptions,
    prompt: dict[str, Any],
    timeout: float,
    *,
    characters: int,
    session: str = "",
    turn: Mapping[str, Any] | None = None,
    turn_parent: str = "",
    keep_seconds: int | None = None,
) -> SubmittedJob:
    """Check what only the server can check, submit the job, wait for it, and return it. A rejected request writes nothing.

    ``prompt`` is the part of the spec that holds the input; ``turn`` and ``turn_parent`` become fields of the ``Submission``. Raises NotFound (model, collection or session), ModelNotServed
    and InvalidValue.
    """
    services().models.check_prompt_length(characters, "prompt")
    idempotency = read_idempotency_key(options.model_dump())
    requested = services().models.find_generation_model(options.model)
    entry = requested.entry
    webhook = job_webhook(options.webhook)
    wait_ms = options.delay_ms
    queue = generation_queue(entry.name)
    retrieval = _retrieval_spec(options, entry.name, queue)
    if retrieval and _rewrites(options, prompt, session, turn_parent):
        retrieval["rewrite"] = True
    spec = {**prompt, **{name: getattr(options, name) for name in SAMPLING}, **retrieval}
    check_generation(entry, spec)
    submission = Submission(
        kind="generate",
        queue=IO_QUEUE if retrieval and not retrieval.get("rewrite") else queue,
        spec=spec,
        owner=owner(),
        end_user=options.end_user or "",
        model=requested.name,
        session=session,
        turn={"model": requested.name, **(turn or {})},
        turn_parent=turn_parent,
        priority=options.priority,
        cost=expected_service(entry, characters, options.max_tokens),
        tokens=expected_tokens(entry, characters, options.max_tokens),
        wait_ms=wait_ms,
        expires_ms=None if options.expires_in is None else wait_ms + int(options.expires_in * 1000),
        timeout_ms=None if options.timeout is None else wait_ms + int(options.timeout * 1000),
        keep_seconds=keep_seconds,
        webhook=webhook,
        metadata=options.metadata,
        idempotency_key=idempotency.key,
        fingerprint=idempotency.fingerprint,
        **options.concurrency,
    )
    return submit_job(submission, timeout)


def _rewrites(options: GenerationOptions, prompt: Mapping[str, Any], session: str, turn_parent: str) -> bool:
    """Whether the model rewrites the question before the search. Only a question that follows an answer needs it."""
    if not (services().settings.rewrite_questions if options.rewrite is None else options.rewrite):
        return False
    if session:
        return turn_parent != FIRST_TURN and services().sessions.has_turns(session, owner())
    return any(message["role"] == "assistant" for message in prompt.get("messages") or ())


def _retrieval_spec(options: GenerationOptions, model: str, next_queue: str) -> dict[str, Any]:
    """The fields that a collection adds to the spec. Empty without a collection."""
    if options.collection is None and not options.use_rag:
        return {}
    context = services()
    source = options.collection or CollectionSource(name=context.settings.default_collection)
    caller().rights.require_scope((SEARCH,), "An answer from documents")
    collection = context.documents.find_collection(owner(), source.name)
    top_k = source.top_k or options.passages or context.settings.retrieve_top_k
    return {
        "collection": collection.id,
        "retrieval": {
            **source.model_dump(exclude={"name", "rerank"}),
            "top_k": top_k,
            **context.models.answer_limits(model, source.model_dump()),
            "reranker": context.models.find_search_reranker(source.rerank, "collection.rerank"),
        },
        "then": next_queue,
    }
