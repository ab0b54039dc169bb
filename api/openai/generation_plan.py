"""Generation plan: the jobs that a request of ``/v1`` asks for, one for each answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from api.generation import check_prompt_length, expected_service, find_generation_model
from api.request_parsing import read_idempotency_key
from api.services import owner
from shared.jobs.queue_names import generation_queue
from shared.jobs.submission import Submission
from shared.models.engine_features import check_generation

MAX_SEED = 2**63 - 1


class Prompt(NamedTuple):
    """One input: its part of the spec, its length in characters, and the field of the request that it came from."""

    spec: Mapping[str, Any]
    characters: int
    param: str


@dataclass(frozen=True, kw_only=True)
class GenerationPlan:
    """``copies`` answers for each of the prompts, in this order."""

    model: str | None
    spec: Mapping[str, Any]
    prompts: Sequence[Prompt]
    copies: int
    max_tokens: int | None
    seed: int | None
    priority: int = 5
    metadata: Mapping[str, str] = field(default_factory=dict)


def build_submissions(plan: GenerationPlan) -> list[Submission]:
    """A submission for each answer. Raises NotFound (model), ModelNotServed and InvalidValue."""
    entry = find_generation_model(plan.model)
    for prompt in plan.prompts:
        check_prompt_length(prompt.characters, prompt.param)
        check_generation(entry, {**prompt.spec, **plan.spec})
    # Two spellings of a request that mean the same have one fingerprint.
    idempotency = read_idempotency_key([entry.name, plan.spec, [prompt.spec for prompt in plan.prompts], plan.copies, plan.seed])
    submissions = []
    for number in range(len(plan.prompts) * plan.copies):
        prompt, copy = plan.prompts[number // plan.copies], number % plan.copies
        seed = {} if plan.seed is None else {"seed": plan.seed + copy if plan.seed <= MAX_SEED - copy else plan.seed - copy}
        submissions.append(
            Submission(
                kind="generate",
                queue=generation_queue(entry.name),
                spec={**prompt.spec, **plan.spec, **seed},
                owner=owner(),
                model=entry.name,
                priority=plan.priority,
                cost=expected_service(entry, prompt.characters, plan.max_tokens),
                metadata=plan.metadata,
                idempotency_key=f"{idempotency.key} {number}" if idempotency.key else "",
                fingerprint=idempotency.fingerprint,
            )
        )
    return submissions
