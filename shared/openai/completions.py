"""Completions: the spec of a request's jobs, and the response of ended ones."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from shared.errors import InvalidValue
from shared.jobs.models import Job
from shared.jobs.servable_models import CHARACTERS_PER_TOKEN
from shared.openai.request_plan import PlanContext, Prompt, RequestPlan, plan_generation
from shared.openai.requests import CompletionRequest
from shared.openai.requests.completions import MAX_PROMPTS
from shared.openai.results import finish_reason, sum_usage
from shared.openai.sampling import sampling_spec


def plan_completion(request: CompletionRequest, context: PlanContext) -> RequestPlan:
    """Translate the request. Raises NotFound, ModelNotServed and InvalidValue."""
    prompts = _prompts(request.prompt)
    copies = request.n or 1
    if len(prompts) * copies > MAX_PROMPTS:
        raise InvalidValue(f"n: {len(prompts)} prompts times {copies} is more than {MAX_PROMPTS} answers", param="n")
    # Nothing is generated, and the scores of the prompt are the result.
    only_scores = request.max_tokens == 0 and request.echo and request.logprobs is not None
    spec = sampling_spec(request, None if only_scores else request.max_tokens, "max_tokens")
    if only_scores:
        spec["max_tokens"] = 0
    if request.echo:
        spec["echo"] = True
    if request.logprobs is not None:
        spec["logprobs"] = request.logprobs
        if request.echo:
            spec["prompt_logprobs"] = request.logprobs
    if request.stream and "prompt_logprobs" in spec:
        raise InvalidValue(
            "stream: log-probabilities of a prompt come with its whole answer; leave out stream, echo or logprobs", param="stream"
        )
    return plan_generation(
        context,
        partial(completion_response, copies=copies),
        model=request.model,
        spec=spec,
        prompts=prompts,
        copies=copies,
        seed=request.seed,
        end_user=request.user,
        concurrency=request.concurrency,
    )


def completion_response(jobs: Sequence[Job], copies: int) -> dict[str, Any]:
    """The response for completed jobs, one for each choice."""
    return {
        **response_head(jobs[0]),
        "choices": [_choice(index, job.result or {}) for index, job in enumerate(jobs)],
        "usage": sum_usage(jobs, copies),
    }


def response_head(job: Job) -> dict[str, Any]:
    """The first fields of a response, and of each of its chunks."""
    return {"id": f"cmpl-{job.id}", "object": "text_completion", "created": job.created_at // 1000, "model": job.model}


def legacy_logprobs(entries: Sequence[Mapping[str, Any]], offset: int = 0) -> dict[str, Any]:
    """Log-probabilities as completions have them. ``offset`` is where the text of the first token starts."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [_top(entry) for entry in entries],
        "text_offset": offsets,
    }


def _top(entry: Mapping[str, Any]) -> dict[str, float] | None:
    """The most likely tokens and the chosen one; None for the first token of a prompt, which has no distribution."""
    if entry["logprob"] is None:
        return None
    top: dict[str, float] = {}
    # Several tokens that are parts of characters may have the same text. The most likely of them counts.
    for item in (*entry.get("top", ()), entry):
        top[item["token"]] = max(item["logprob"], top.get(item["token"], item["logprob"]))
    return top


def _choice(index: int, result: Mapping[str, Any]) -> dict[str, Any]:
    entries = [*(result.get("prompt_logprobs") or ()), *(result.get("logprobs") or ())]
    has_scores = result.get("logprobs") is not None or result.get("prompt_logprobs") is not None
    return {
        "index": index,
        "text": result.get("text") or "",
        "logprobs": legacy_logprobs(entries) if has_scores else None,
        "finish_reason": finish_reason(result),
    }


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[Prompt]:
    if isinstance(prompt, str):
        return [Prompt({"prompt": prompt}, len(prompt), "prompt")]
    if isinstance(prompt[0], int):
        return [Prompt({"prompt_ids": prompt}, CHARACTERS_PER_TOKEN * len(prompt), "prompt")]
    return [
        Prompt({"prompt": item}, len(item), f"prompt[{index}]")
        if isinstance(item, str)
        else Prompt({"prompt_ids": item}, CHARACTERS_PER_TOKEN * len(item), f"prompt[{index}]")
        for index, item in enumerate(prompt)
    ]
